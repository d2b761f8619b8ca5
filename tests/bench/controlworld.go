package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/metrics"
	"runtime/pprof"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// keepAlive is short, so that the instances of a round end while others start.
const keepAlive = 2 * time.Second

// functionPrefix begins the functions' names; the number follows.
const functionPrefix = "fn-"

// waiting are workers that only wait.
type waiting interface {
	invoke.Workers
	run(ctx context.Context) error
	noted() *ledger
	// cpu is what they took of processors besides this process.
	cpu() time.Duration
	// profile has a process of their own, if they have one, write a CPU profile into the file from now on.
	profile(file string) error
	close()
}

// controlWorld is a whole control plane in this process: the bus on a directory of its own, scheduler, gateway, and workers that only wait, in this
// process or in another one.
type controlWorld struct {
	dir     string
	bus     *bus.Bus
	invoker *invoke.Invoker
	workers waiting
	refs    []functions.Ref
	stop    context.CancelFunc
	parts   *errgroup.Group
	// idler is another process that takes a share of the processors; nil where there is none.
	idler *idler
}

func newControlWorld(ctx context.Context, p controlPlan) (*controlWorld, error) {
	dir, err := os.MkdirTemp("", "ttcontrol")
	if err != nil {
		return nil, err
	}
	w := &controlWorld{dir: dir}
	running, stop := context.WithCancel(ctx)
	w.stop = stop
	w.parts, running = errgroup.WithContext(running)
	if p.share > 0 {
		if w.idler, err = newIdler(p.share); err != nil {
			_ = w.close()
			return nil, err
		}
	}
	if err := w.start(running, p); err != nil {
		_ = w.close()
		return nil, err
	}
	return w, nil
}

// part runs one part of the world, with its name in profiles.
func (w *controlWorld) part(ctx context.Context, name string, run func(context.Context) error) {
	w.parts.Go(func() (err error) {
		pprof.Do(ctx, pprof.Labels("part", name), func(ctx context.Context) { err = run(ctx) })
		return err
	})
}

func (w *controlWorld) start(ctx context.Context, p controlPlan) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	pprof.Do(ctx, pprof.Labels("part", "bus"), func(ctx context.Context) {
		cfg := bus.Config{DataDir: filepath.Join(w.dir, "server")}
		if p.joined {
			cfg.Listen = "127.0.0.1:0"
		}
		w.bus, err = bus.Open(ctx, cfg, log)
	})
	if err != nil {
		return err
	}
	deployed, err := w.deploy(ctx, p.functions)
	if err != nil {
		return err
	}
	if err := w.hire(p, deployed); err != nil {
		return err
	}
	w.part(ctx, "workers", w.workers.run)
	sched, err := scheduler.New(scheduler.Config{}, w.bus, log)
	if err != nil {
		return err
	}
	w.part(ctx, "scheduler", sched.Run)
	var cfg invoke.Config
	if p.near {
		cfg.Near = sched.Hear
	}
	if w.invoker, err = invoke.New(cfg, w.bus, w.workers, log); err != nil {
		return err
	}
	w.part(ctx, "gateway", w.invoker.Run)
	for _, ready := range []<-chan struct{}{sched.Ready(), w.invoker.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// hire has the plan's workers come.
func (w *controlWorld) hire(p controlPlan, deployed []fakeRevision) error {
	if p.joined {
		away, err := newAwayWorkers(w.bus, p, w.dir)
		if err == nil {
			w.workers = away
		}
		return err
	}
	here, err := newFakeWorkers(w.bus, p, deployed)
	if err == nil {
		w.workers = here
	}
	return err
}

// deployedAs is the function of a number, and its revision.
func deployedAs(i int) (functions.Ref, functions.Revision, error) {
	ref := functions.Ref{Namespace: namespaceOf(i), Name: functionPrefix + fmt.Sprintf("%05d", i)}
	rev := functions.Revision{
		Schema: functions.Schema, Namespace: ref.Namespace, Function: ref.Name, Created: time.Now().UTC(), State: functions.RevisionReady,
		Artifact: functions.Artifact{Digest: digestOf(i), Name: "./fn", Architecture: "amd64", Size: 4 << 20},
		Config: functions.Config{
			Env: map[string]string{"LOG_LEVEL": "info", "DATABASE_URL": "postgres://db.internal/app"}, Labels: map[string]string{"team": ref.Namespace},
			Scale: functions.Scale{KeepAlive: functions.Duration(keepAlive)},
		}.WithDefaults(),
	}
	var err error
	rev.ID, err = functions.RevisionIDOf(ref, rev.Artifact, rev.Config)
	return ref, rev, err
}

// deploy records functions of many namespaces, each with a revision that has the traffic.
func (w *controlWorld) deploy(ctx context.Context, n int) ([]fakeRevision, error) {
	deployed := make([]fakeRevision, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range n {
		ref, rev, err := deployedAs(i)
		if err != nil {
			return nil, err
		}
		w.refs = append(w.refs, ref)
		g.Go(func() error {
			if _, err := w.bus.Revisions().Put(ctx, bus.RevisionKey(ref, rev.ID), rev); err != nil {
				return err
			}
			deployed[i] = newFakeRevision(&rev)
			_, err := w.bus.Functions().Put(ctx, bus.FunctionKey(ref), functions.Function{
				Schema: functions.Schema, Namespace: ref.Namespace, Name: ref.Name, Live: rev.ID, Revisions: []functions.RevisionID{rev.ID},
				Generation: 1, Created: rev.Created, Updated: rev.Created,
			})
			return err
		})
	}
	return deployed, g.Wait()
}

// settle returns once no instance is left and every worker was heard of since.
func (w *controlWorld) settle(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for w.workers.noted().live.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(500 * time.Millisecond):
		return nil
	}
}

func (w *controlWorld) close() error {
	w.stop()
	err := w.parts.Wait()
	if w.idler != nil {
		w.idler.close()
	}
	if w.workers != nil {
		w.workers.close()
	}
	if w.bus != nil {
		if cerr := w.bus.Close(context.Background()); err == nil {
			err = cerr
		}
	}
	if rerr := os.RemoveAll(w.dir); err == nil {
		err = rerr
	}
	return err
}

// processTime is the CPU time of the process.
func processTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineTime is the CPU time of all processes of the machine.
func machineTime() time.Duration {
	data, err := os.ReadFile("/proc/stat")
	var user, nice, system int64
	if err == nil {
		_, err = fmt.Sscanf(string(data), "cpu %d %d %d", &user, &nice, &system)
	}
	if err != nil {
		return 0
	}
	return time.Duration(user+nice+system) * 10 * time.Millisecond
}

// heapState is what the heap held after its last collection, where it is collected next, and what was ever allocated, in bytes.
type heapState struct{ live, goal, allocated uint64 }

func heapNow() heapState {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return heapState{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()}
}

// collections is how often the garbage collector has run.
func collections() int {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}
