package nomad_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/tests/fakenomad"
)

const patience = 30 * time.Second

// rights are what the policy for the servers allows.
var rights = []string{"list-jobs", "read-job", "scale-job", "node:read"}

// world is a fake cluster with a job of workers, and a pool that follows it.
type world struct {
	t       *testing.T
	cluster *fakenomad.Cluster
	admin   *api.Client
	pool    *nomad.Pool
	states  chan scheduler.PoolState
	last    scheduler.PoolState
}

func newWorld(t *testing.T, cfg fakenomad.Config, pool nomad.Config) *world {
	t.Helper()
	c := fakenomad.New(cfg)
	t.Cleanup(c.Close)
	w := &world{t: t, cluster: c, states: make(chan scheduler.PoolState, 1000)}
	w.admin = client(t, c.URL(), fakenomad.Token)
	w.register(2, true)
	pool.Job, pool.Client = "workers", client(t, c.URL(), c.Allow(rights...))
	if pool.Retry == 0 {
		pool.Retry = 10 * time.Millisecond
	}
	var err error
	if w.pool, err = nomad.New(pool, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.follow()
	return w
}

func client(t *testing.T, url, token string) *api.Client {
	t.Helper()
	c, err := nomad.At(url, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// follow runs the pool until the test ends.
func (w *world) follow() {
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.pool.Run(ctx, func(s scheduler.PoolState) { w.states <- s }) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Errorf("the pool ended with %v", err)
		}
	})
}

// alloc is an allocation as it is.
func (w *world) alloc(id string) *api.Allocation {
	w.t.Helper()
	a, _, err := w.admin.Allocations().Info(id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// register makes or changes the job.
func (w *world) register(count int, elastic bool) {
	w.t.Helper()
	w.make(workers(count, elastic))
}

func (w *world) make(j *api.Job) {
	w.t.Helper()
	if _, _, err := w.admin.Jobs().Register(j, nil); err != nil {
		w.t.Fatal(err)
	}
}

// workers is the job.
func workers(count int, elastic bool) *api.Job {
	j := api.NewServiceJob("workers", "workers", "global", 50)
	task := api.NewTask("worker", "raw_exec").SetConfig("command", "/bin/true").Require(&api.Resources{})
	g := api.NewTaskGroup(nomad.DefaultGroup, count).AddTask(task)
	g.Update = &api.UpdateStrategy{}
	if elastic {
		least, most := int64(1), int64(3)
		g.Scaling = &api.ScalingPolicy{Min: &least, Max: &most}
	}
	return j.AddTaskGroup(g)
}

// until waits for a state of which is holds.
func (w *world) until(what string, is func(scheduler.PoolState) bool) scheduler.PoolState {
	w.t.Helper()
	for over := time.After(patience); ; {
		select {
		case w.last = <-w.states:
			if is(w.last) {
				return w.last
			}
		case <-over:
			w.t.Fatalf("%s: it stays %+v", what, w.last)
		}
	}
}

func has(n int) func(scheduler.PoolState) bool {
	return func(s scheduler.PoolState) bool {
		for _, m := range s.Members {
			if m.Leaving != "" {
				return false
			}
		}
		return len(s.Members) == n && s.Busy == ""
	}
}

func TestThePoolIsWhatTheJobRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakenomad.Config{}, nomad.Config{})
	s := w.until("two run", has(2))
	if !s.Elastic || s.Count != 2 || s.Min != 1 || s.Max != 3 || s.Members[0].Index != 0 || s.Members[1].Index != 1 || s.Members[0].Name == "" {
		t.Errorf("%+v", s)
	}
	w.register(2, false)
	w.until("it is fixed", func(s scheduler.PoolState) bool { return !s.Elastic })
	if err := w.pool.Resize(t.Context(), w.last, 3, "a test"); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a fixed pool: %v", err)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakenomad.Config{}, nomad.Config{})
	before := w.until("two run", has(2))
	w.cluster.HoldDeployments(true)
	if err := w.pool.Resize(t.Context(), before, 3, "a test"); err != nil {
		t.Fatal(err)
	}
	s := w.until("a deployment is active", func(s scheduler.PoolState) bool { return s.Count == 3 && s.Busy != "" })
	if err := w.pool.Resize(t.Context(), s, 2, "a test"); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("with a deployment: %v", err)
	}
	w.cluster.HoldDeployments(false)
	s = w.until("three run", has(3))
	if err := w.pool.Resize(t.Context(), before, 2, "a test"); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("from an old state: %v", err)
	}
	for _, n := range []int{0, 4} {
		if err := w.pool.Resize(t.Context(), s, n, "a test"); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("to %d, out of the bounds: %v", n, err)
		}
	}
	if err := w.pool.Resize(t.Context(), s, 1, "a test"); err != nil {
		t.Fatal(err)
	}
	if s = w.until("one runs", has(1)); s.Members[0].Index != 0 {
		t.Errorf("the highest indexes do not go first: %+v", s)
	}
}

func TestANodeIsDrained(t *testing.T) {
	t.Parallel()
	// With as many nodes as allocations none has another place, so the drain shows as long as it lasts.
	w := newWorld(t, fakenomad.Config{Nodes: 1}, nomad.Config{})
	s := w.until("two run", has(2))
	alloc := w.alloc(s.Members[0].Name)
	if _, err := w.admin.Nodes().ToggleEligibility(alloc.NodeID, false, nil); err != nil {
		t.Fatal(err)
	}
	w.until("it is closed", func(s scheduler.PoolState) bool { return s.Members[0].Closed != "" && s.Members[0].Leaving == "" })
	if _, err := w.admin.Nodes().UpdateDrain(alloc.NodeID, &api.DrainSpec{Deadline: time.Hour}, false, nil); err != nil {
		t.Fatal(err)
	}
	w.until("it leaves", func(s scheduler.PoolState) bool { return s.Members[0].Leaving != "" })
	if _, err := w.admin.Nodes().UpdateDrain(alloc.NodeID, nil, true, nil); err != nil {
		t.Fatal(err)
	}
	w.until("it is as before", func(s scheduler.PoolState) bool {
		return len(s.Members) == 2 && s.Members[0].Leaving == "" && s.Members[0].Closed == ""
	})
}

// A stream that is closed, and one that begins after what happened, are made good by another list.
func TestWhatTheStreamMissesIsListed(t *testing.T) {
	t.Parallel()
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fakenomad.Config{}, nomad.Config{Relist: time.Hour})
		w.until("two run", has(2))
		w.streams(1)
		w.cluster.CloseStreams()
		w.register(3, true)
		w.until("three run", has(3))
	})
	t.Run("lost", func(t *testing.T) {
		t.Parallel()
		// One event is kept: what comes at once overruns every stream.
		w := newWorld(t, fakenomad.Config{Events: 1}, nomad.Config{Relist: 50 * time.Millisecond})
		w.until("two run", has(2))
		for _, n := range []int{1, 3, 1, 3} {
			w.register(n, true)
		}
		w.until("three run", has(3))
	})
}

// streams waits until so many streams are open.
func (w *world) streams(n int) {
	w.t.Helper()
	for begun := time.Now(); w.cluster.Streams() != n; time.Sleep(time.Millisecond) {
		if time.Since(begun) > patience {
			w.t.Fatalf("%d streams are open, not %d", w.cluster.Streams(), n)
		}
	}
}

// A node that is lost is no affair of the pool's until Nomad has replaced what was on it, whether what was there is lost or may come back.
func TestANodeIsLost(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*api.DisconnectStrategy{"lost": nil, "unknown": {LostAfter: new(time.Hour), Replace: new(true)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakenomad.Config{Grace: 50 * time.Millisecond}, nomad.Config{})
			j := workers(2, true)
			j.TaskGroups[0].Disconnect = d
			w.make(j)
			s := w.until("two run", has(2))
			lost := s.Members[1].Name
			w.cluster.LoseNode(w.alloc(lost).NodeID)
			w.until("it is replaced", func(s scheduler.PoolState) bool {
				return len(s.Members) == 2 && s.Members[0].Name != lost && s.Members[1].Name != lost && s.Members[1].Index == 1
			})
			if a := w.alloc(lost); a.ClientStatus != name {
				t.Errorf("it is %s", a.ClientStatus)
			}
		})
	}
}

// What is not to be replaced while its node is away stays a member, and so do those that nothing can replace.
func TestANodeIsAway(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*api.DisconnectStrategy{
		"not to be replaced": {LostAfter: new(50 * time.Millisecond), Replace: new(false)}, "nowhere to go": {LostAfter: new(time.Hour), Replace: new(true)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakenomad.Config{Nodes: 1, Grace: time.Millisecond}, nomad.Config{})
			j := workers(2, true)
			j.TaskGroups[0].Disconnect = d
			w.make(j)
			s := w.until("two run", has(2))
			away := s.Members[1].Name
			w.cluster.LoseNode(w.alloc(away).NodeID)
			for begun := time.Now(); w.alloc(away).ClientStatus != api.AllocClientStatusUnknown; time.Sleep(time.Millisecond) {
				if time.Since(begun) > patience {
					t.Fatalf("it is %s", w.alloc(away).ClientStatus)
				}
			}
			w.make(j)
			w.until("it is a member", func(s scheduler.PoolState) bool { return len(s.Members) == 2 && s.Members[1].Name == away })
		})
	}
}

func TestWhoMayNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakenomad.Config{}, nomad.Config{})
	s := w.until("two run", has(2))
	for name, token := range map[string]string{"without a token": "", "with a token that is none": "nobody", "without the right": w.cluster.Allow("read-job", "node:read")} {
		pool, err := nomad.New(nomad.Config{Job: "workers", Client: client(t, w.cluster.URL(), token)}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.Resize(t.Context(), s, 3, "a test"); !fault.Is(err, fault.CodeDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The servers' own token may not touch nodes.
	mine := client(t, w.cluster.URL(), w.cluster.Allow(rights...))
	if _, err := mine.Nodes().UpdateDrain(s.Members[0].Name, &api.DrainSpec{}, false, nil); err == nil {
		t.Error("it may drain a node")
	}
}

// A job that is purged is a pool that has nothing, until it is there again.
func TestTheJobGoesAndComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakenomad.Config{}, nomad.Config{RetryMost: 20 * time.Millisecond})
	w.until("two run", has(2))
	if _, _, err := w.admin.Jobs().Deregister("workers", true, nil); err != nil {
		t.Fatal(err)
	}
	w.until("it is gone", func(s scheduler.PoolState) bool { return len(s.Members) == 0 && !s.Elastic })
	w.register(3, true)
	w.until("three run", has(3))
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []nomad.Config{{}, {Job: "x"}, {Job: "x", Client: client(t, "http://127.0.0.1:1", ""), Relist: -1}} {
		if _, err := nomad.New(c, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := nomad.At("::", ""); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("an address that is none: %v", err)
	}
}
