package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/heap"
	"github.com/tatami-faas/tatami/internal/procs"
)

const (
	acceptCallers = 64
	bodySize      = 512
)

// acceptPerRound is how many invocations are accepted in a round, alwaysPerRound how many messages JetStream syncs one by one.
var acceptPerRound, alwaysPerRound = 20_000, 3_000

// benchQueue measures the queue in process: acceptance with everything on, barrier included, by 64 callers and by one, and completion
// (fetch, run a function that does nothing, store the result, barrier, ack), beside the same work done by JetStream alone.
func benchQueue(ctx context.Context, binary string) ([]figure, error) {
	defer asServed()()
	got := map[string][]float64{}
	add := func(name string, v float64) { got[name] = append(got[name], v) }
	for round := range rounds {
		turns := []func() error{
			func() error { return acceptRound(ctx, add) },
			func() error { return keyedRound(ctx, add) },
			func() error { return fastRound(ctx, add) },
			func() error { return httpRound(ctx, add) },
			func() error { return rawRound(ctx, false, acceptPerRound, "raw", add) },
			func() error { return rawRound(ctx, true, alwaysPerRound, "always", add) },
			func() error { return fsyncRound(add) },
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
	}
	if err := containerRounds(ctx, binary, add); err != nil {
		return nil, err
	}
	m := func(name string) float64 { return median(got[name]) }
	n := rounds * acceptPerRound
	return []figure{
		beside("queue", "accept_per_s_c64", "1/s", m("accept"), "raw-jetstream", m("raw-publish"), n),
		beside("queue", "accept_per_s_c64", "1/s", m("accept"), "raw-jetstream-sync-always", m("always-publish"), n),
		beside("queue", "accept_p99_ms_c64", "ms", m("accept-p99"), "raw-jetstream-sync-always", m("always-p99"), n),
		beside("queue", "accept_p50_ms_c1", "ms", m("accept-c1"), "fsync", m("fsync"), rounds*500),
		beside("queue", "accept_keyed_per_s", "1/s", m("keyed"), "raw-jetstream", m("raw-publish"), n),
		beside("queue", "accept_http_per_s", "1/s", m("http"), "raw-jetstream", m("raw-publish"), n),
		beside("queue", "accept_fast_per_s", "1/s", m("fast"), "raw-jetstream", m("raw-publish"), n),
		beside("queue", "complete_per_s", "1/s", m("complete"), "raw-jetstream", m("raw-complete"), n),
		beside("queue", "complete_container_per_s", "1/s", m("container"), "warm", m("container-warm"), rounds*containerPerRound),
	}, nil
}

// asServed sets the collector and the processors as the server sets them, for all that is measured, until what it returns is called.
func asServed() (undo func()) {
	heap.Choose(heap.Target(heap.Memory(os.DirFS("/"))), os.Getenv).Apply(slog.New(slog.DiscardHandler))
	had := runtime.GOMAXPROCS(0)
	procs.Apply(procs.Choose(had, os.Getenv), slog.New(slog.DiscardHandler))
	return func() { runtime.GOMAXPROCS(had) }
}

// withBus runs fn on a store of its own.
func withBus(ctx context.Context, fn func(b *bus.Bus) error) (err error) {
	dir, err := os.MkdirTemp("/tmp", "ttqueue")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := bus.Open(ctx, bus.Config{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.Close(ctx); err == nil {
			err = cerr
		}
	}()
	return fn(b)
}

// withQueue runs fn with a queue on a store of its own, whose function takes nothing until it is let.
func withQueue(ctx context.Context, run *nothing, fn func(q *queue.Queue) error) error {
	return withQueueOver(ctx, queue.Config{}, run, func(_ *bus.Bus, q *queue.Queue) error { return fn(q) })
}

// withQueueOver runs fn with a queue for the functions on a store of its own.
func withQueueOver(ctx context.Context, cfg queue.Config, run queue.DataPath, fn func(b *bus.Bus, q *queue.Queue) error) error {
	return withBus(ctx, func(b *bus.Bus) error {
		q, err := queue.NewOver(cfg, b, run, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		qctx, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- q.Run(qctx) }()
		<-q.Ready()
		if err := fn(b, q); err != nil {
			return err
		}
		stop()
		return <-ended
	})
}

// handOver is what is accepted.
func handOver(run *nothing) queue.Request {
	return queue.Request{Ref: run.ref, Method: "POST", Path: "/", Body: benchBody(), Header: http.Header{"Content-Type": {"text/plain"}}}
}

func benchBody() []byte { return []byte(strings.Repeat("x", bodySize)) }

func acceptRound(ctx context.Context, add func(string, float64)) error {
	run := newNothing()
	return withQueue(ctx, run, func(q *queue.Queue) error {
		r := handOver(run)
		accept := func() error {
			_, err := q.Accept(ctx, r)
			return err
		}
		// The function takes nothing until all is accepted: the two rates are measured apart.
		rate, lat, err := hammer(acceptCallers, acceptPerRound, accept)
		if err != nil {
			return err
		}
		add("accept", rate)
		add("accept-p99", ms(lat[len(lat)*99/100]))
		_, lat, err = hammer(1, 500, accept)
		if err != nil {
			return err
		}
		add("accept-c1", ms(lat[len(lat)/2]))

		rate, err = run.complete(ctx, q, acceptPerRound+500)
		if err != nil {
			return err
		}
		add("complete", rate)
		return nil
	})
}

// keyedRound is acceptance under a key each.
func keyedRound(ctx context.Context, add func(string, float64)) error {
	run := newNothing()
	return withQueue(ctx, run, func(q *queue.Queue) error {
		var n atomic.Int64
		rate, _, err := hammer(acceptCallers, acceptPerRound, func() error {
			r := handOver(run)
			r.Key = "key-" + strconv.FormatInt(n.Add(1), 10)
			_, err := q.Submit(ctx, r)
			return err
		})
		add("keyed", rate)
		return err
	})
}

// fastRound is acceptance that does not wait for the disk.
func fastRound(ctx context.Context, add func(string, float64)) error {
	run := newNothing()
	run.rev.Config.Queue.Durability = functions.DurabilityFast
	return withQueue(ctx, run, func(q *queue.Queue) error {
		r := handOver(run)
		rate, _, err := hammer(acceptCallers, acceptPerRound, func() error {
			_, err := q.Accept(ctx, r)
			return err
		})
		add("fast", rate)
		return err
	})
}

// hammer calls fn n times from so many callers and returns the rate and the sorted latencies.
func hammer(callers, n int, fn func() error) (perSecond float64, latencies []time.Duration, err error) {
	latencies = make([]time.Duration, n)
	var next atomic.Int64
	var once sync.Once
	var wg sync.WaitGroup
	begun := time.Now()
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				at := time.Now()
				if ferr := fn(); ferr != nil {
					once.Do(func() { err = ferr })
					return
				}
				latencies[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	slices.Sort(latencies)
	return float64(n) / took.Seconds(), latencies, err
}

// nothing is a function that does nothing, in this process.
type nothing struct {
	ref  functions.Ref
	rev  *functions.Revision
	open chan struct{}
	// leases bounds the attempts at once, as instances would.
	leases chan struct{}
}

func newNothing() *nothing {
	ref := functions.Ref{Namespace: functions.DefaultNamespace, Name: "nothing"}
	return &nothing{
		ref: ref, open: make(chan struct{}), leases: make(chan struct{}, acceptCallers),
		rev: &functions.Revision{
			Schema: functions.Schema, ID: "rev_nothing", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady,
			Config: functions.Config{Concurrency: acceptCallers}.WithDefaults(),
		},
	}
}

func (n *nothing) Lookup(context.Context, functions.Ref) (*functions.Revision, error) {
	return n.rev, nil
}

func (n *nothing) SetBacklog(functions.Ref, int) {}

func (n *nothing) Lease(ctx context.Context, _ functions.Ref) (queue.Lease, error) {
	select {
	case <-n.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case n.leases <- struct{}{}:
		return nothingLease{n}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// complete lets the function run and waits until every result is stored and acked.
func (n *nothing) complete(ctx context.Context, q *queue.Queue, want int) (perSecond float64, err error) {
	begun := time.Now()
	close(n.open)
	for {
		d := q.Depths()[n.ref]
		if d.Pending+d.Running+d.Scheduled == 0 {
			return float64(want) / time.Since(begun).Seconds(), nil
		}
		if time.Since(begun) > 2*time.Minute {
			return 0, fmt.Errorf("not complete after two minutes: %+v", d)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

type nothingLease struct{ n *nothing }

func (l nothingLease) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok")), ContentLength: 2, Request: r}, nil
}

func (l nothingLease) Release()                       { <-l.n.leases }
func (l nothingLease) Revision() *functions.Revision  { return l.n.rev }
func (l nothingLease) Instance() functions.InstanceID { return "ins_nothing" }
func (l nothingLease) Cold() bool                     { return false }
