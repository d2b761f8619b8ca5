package scheduler_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
)

const patience = time.Minute

var hello = functions.Ref{Namespace: functions.DefaultNamespace, Name: "hello"}

func openBus(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// run starts a scheduler; the function returned stops it and waits.
func run(t *testing.T, b *bus.Bus, cfg scheduler.Config) func() {
	t.Helper()
	s, err := scheduler.New(cfg, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case <-time.After(patience):
		t.Fatal("the scheduler does not become ready")
	}
	return stop
}

func quick() scheduler.Config {
	return scheduler.Config{Settle: 10 * time.Millisecond, Tick: 10 * time.Millisecond, TrafficDelay: 10 * time.Millisecond}
}

// fakeWorker speaks a worker's messages and does with commands what the test says.
type fakeWorker struct {
	t        *testing.T
	b        *bus.Bus
	node     functions.NodeID
	commands chan bus.Command

	mu    sync.Mutex
	seq   uint64
	insts map[functions.InstanceID]bus.InstanceReport
}

func startWorker(t *testing.T, b *bus.Bus) *fakeWorker {
	t.Helper()
	w := &fakeWorker{t: t, b: b, node: functions.NewNodeID(), commands: make(chan bus.Command, 256), insts: map[functions.InstanceID]bus.InstanceReport{}}
	subscribe := func(subject string, h nats.MsgHandler) {
		sub, err := b.Conn().Subscribe(subject, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sub.Unsubscribe() })
	}
	subscribe(bus.CommandSubject(w.node), func(m *nats.Msg) {
		c, err := bus.Decode[bus.Command](m.Data)
		if err != nil {
			t.Errorf("command: %v", err)
			return
		}
		w.take(c)
		w.commands <- c
	})
	subscribe(bus.SubjectReportsWanted, func(*nats.Msg) { w.full() })
	if err := b.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	w.full()
	beats, stop := time.NewTicker(bus.BeatEvery/4), make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-beats.C:
				w.mu.Lock()
				w.publish(false, nil)
				w.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { close(stop); beats.Stop(); beating.Wait() })
	return w
}

func (w *fakeWorker) take(c bus.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := c.Instance
	in, known := w.insts[id]
	switch {
	case c.Action == bus.ActionStart && !known:
		r := c.Revision
		w.tell(bus.InstanceReport{
			Instance: id, Namespace: r.Namespace, Function: r.Function, Revision: r.ID, State: functions.InstanceStarting,
			Since: time.Now(), Started: time.Now(), Slots: r.Config.Concurrency, Reserved: r.Config.Limits.Resources(),
		})
	case c.Action != bus.ActionStart && known:
		in.State = functions.InstanceStopped
		w.tell(in)
	}
}

// tell reports one instance; w.mu is held.
func (w *fakeWorker) tell(in bus.InstanceReport) {
	if in.State.Gone() {
		delete(w.insts, in.Instance)
	} else {
		w.insts[in.Instance] = in
	}
	w.publish(false, []bus.InstanceReport{in})
}

func (w *fakeWorker) full() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []bus.InstanceReport
	for _, in := range w.insts {
		list = append(list, in)
	}
	w.publish(true, list)
}

func (w *fakeWorker) publish(full bool, list []bus.InstanceReport) {
	w.seq++
	r := bus.Report{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "boot", Node: w.node, Sequence: w.seq}, Full: full, Instances: list,
		State: bus.NodeState{Name: "one", Architecture: "amd64", Allocatable: functions.Resources{CPU: 4000, Memory: 4 * functions.GiB, Instances: 50}},
	}
	if err := bus.Publish(w.b, bus.ReportSubject(w.node), r); err != nil {
		w.t.Errorf("report: %v", err)
	}
}

// change reports a change of an instance.
func (w *fakeWorker) change(id functions.InstanceID, f func(in *bus.InstanceReport)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.insts[id]
	f(&in)
	in.Since = time.Now()
	w.tell(in)
}

func (w *fakeWorker) ready(id functions.InstanceID) {
	w.change(id, func(in *bus.InstanceReport) { in.State = functions.InstanceReady })
}

func (w *fakeWorker) crash(id functions.InstanceID, logs ...string) {
	w.change(id, func(in *bus.InstanceReport) {
		in.State, in.Reason, in.Exit, in.Logs = functions.InstanceFailed, "exited with code 3", &functions.Exit{Code: 3}, logs
	})
}

// next returns the next command of an action.
func (w *fakeWorker) next(action bus.Action) bus.Command {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case c := <-w.commands:
			if c.Action == action {
				return c
			}
		case <-deadline:
			w.t.Fatalf("no command to %s", action)
		}
	}
}

func revision(id string) functions.Revision {
	return functions.Revision{
		Schema: functions.Schema, ID: functions.RevisionID(id), Namespace: hello.Namespace, Function: hello.Name, State: functions.RevisionPending,
		Artifact: functions.Artifact{Digest: "sha256:" + id, Architecture: "amd64"}, Config: functions.Config{}.WithDefaults(),
	}
}

// deploy writes the records as the control API does.
func deploy(t *testing.T, b *bus.Bus, rev functions.Revision) {
	t.Helper()
	if _, err := b.Revisions().Put(t.Context(), bus.RevisionKey(rev.Ref(), rev.ID), rev); err != nil {
		t.Fatal(err)
	}
	fn, at, err := b.Functions().Get(t.Context(), bus.FunctionKey(rev.Ref()))
	if fault.KindOf(err) == fault.NotFound {
		fn, err = functions.Function{Schema: functions.Schema, Namespace: rev.Namespace, Name: rev.Function}, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	fn.Candidate = rev.ID
	fn.Revisions = append(fn.Revisions, rev.ID)
	fn.Generation++
	if at == 0 {
		_, err = b.Functions().Create(t.Context(), bus.FunctionKey(rev.Ref()), fn)
	} else {
		_, err = b.Functions().Update(t.Context(), bus.FunctionKey(rev.Ref()), fn, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// awaitFunction returns the function's record once it is as wanted.
func awaitFunction(t *testing.T, b *bus.Bus, want func(functions.Function) bool) functions.Function {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got functions.Function
	seen := false
	err := b.Functions().Watch(ctx, bus.FunctionKey(hello), func(e bus.Event[functions.Function]) {
		if !e.Synced && !e.Deleted && !seen && want(e.Value) {
			got, seen = e.Value, true
			cancel()
		}
	})
	if err != nil || !seen {
		t.Fatalf("the record did not become as wanted: %v", err)
	}
	return got
}

func getRevision(t *testing.T, b *bus.Bus, id functions.RevisionID) functions.Revision {
	t.Helper()
	r, _, err := b.Revisions().Get(t.Context(), bus.RevisionKey(hello, id))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ask[T any](t *testing.T, b *bus.Bus, subject string, req any) T {
	t.Helper()
	if req != nil {
		m := nats.NewMsg(subject)
		m.Data = encode(t, req)
		return request[T](t, b, m)
	}
	return request[T](t, b, nats.NewMsg(subject))
}

func demand(t *testing.T, b *bus.Bus, seq uint64, waiting int) {
	t.Helper()
	d := bus.Demand{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "g", Sequence: seq}, Gateway: "g",
		Functions: []bus.FunctionDemand{{Namespace: hello.Namespace, Function: hello.Name, Waiting: waiting, Concurrency: float64(waiting)}},
	}
	if err := bus.Publish(b, bus.SubjectDemand, d); err != nil {
		t.Fatal(err)
	}
}

func TestADeployMovesTheTrafficAndDrainsTheOldRevision(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	run(t, b, quick())

	deploy(t, b, revision("rev_1"))
	first := w.next(bus.ActionStart)
	if first.Revision.ID != "rev_1" || first.Epoch != bus.Epoch || first.Sequence == 0 || first.Asked.IsZero() || first.Reason == "" {
		t.Errorf("command %+v", first)
	}
	w.ready(first.Instance)
	fn := awaitFunction(t, b, func(f functions.Function) bool { return f.Candidate == "" })
	if fn.Live != "rev_1" || fn.Previous != "" || fn.Generation != 2 {
		t.Errorf("function %+v", fn)
	}
	if r := getRevision(t, b, "rev_1"); r.State != functions.RevisionReady {
		t.Errorf("revision is %s", r.State)
	}

	deploy(t, b, revision("rev_2"))
	second := w.next(bus.ActionStart)
	w.ready(second.Instance)
	fn = awaitFunction(t, b, func(f functions.Function) bool { return f.Candidate == "" })
	if fn.Live != "rev_2" || fn.Previous != "rev_1" {
		t.Errorf("function %+v", fn)
	}
	if c := w.next(bus.ActionDrain); c.Instance != first.Instance || time.Until(c.Deadline) < 30*time.Second {
		t.Errorf("drained %s until %s", c.Instance, c.Deadline)
	}
}

func TestAFailedDeployLeavesTheTraffic(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	run(t, b, quick())
	deploy(t, b, revision("rev_1"))
	w.ready(w.next(bus.ActionStart).Instance)
	awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_1" })

	deploy(t, b, revision("rev_2"))
	w.crash(w.next(bus.ActionStart).Instance, "first words")
	w.crash(w.next(bus.ActionStart).Instance, "panic: no such table")
	fn := awaitFunction(t, b, func(f functions.Function) bool { return f.Candidate == "" })
	if fn.Live != "rev_1" {
		t.Errorf("live is %s", fn.Live)
	}
	r := getRevision(t, b, "rev_2")
	if r.State != functions.RevisionFailed || r.Reason != "exited with code 3 (2 starts)" || !slices.Equal(r.Logs, []string{"panic: no such table"}) {
		t.Errorf("revision %s: %q %q", r.State, r.Reason, r.Logs)
	}
}

// A start that found something away says nothing of the revision: it is made again.
func TestADeployGoesOnWhenTheStoreWasAway(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	run(t, b, quick())
	deploy(t, b, revision("rev_1"))
	w.change(w.next(bus.ActionStart).Instance, func(in *bus.InstanceReport) {
		in.State, in.Reason, in.Unavailable = functions.InstanceFailed, "the store is away", true
	})
	w.ready(w.next(bus.ActionStart).Instance)
	awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_1" })
}

func TestDemandStartsFromZeroWithoutATick(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	cfg := quick()
	cfg.IdleTick = time.Hour
	run(t, b, cfg)
	deploy(t, b, revision("rev_1"))
	in := w.next(bus.ActionStart).Instance
	w.ready(in)
	awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_1" })
	// It ends by itself; nobody waits, so nothing follows, and the next tick is an hour away.
	w.change(in, func(in *bus.InstanceReport) { in.State = functions.InstanceStopped })
	for o := (bus.Overview{}); len(o.Functions) == 0 || o.Functions[0].Ready > 0; {
		o = ask[bus.Overview](t, b, bus.SubjectOverview, nil)
	}
	for i := range 3 {
		demand(t, b, uint64(i+1), 1)
	}
	c := w.next(bus.ActionStart)
	w.ready(c.Instance)
	demand(t, b, 9, 1)
	select {
	case c := <-w.commands:
		t.Errorf("one start was enough, then came %s", c.Action)
	case <-time.After(100 * time.Millisecond):
	}
}

func TestTheEndOfTheKeepAliveWaitsForNoTick(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	cfg := quick()
	cfg.IdleTick = time.Hour
	run(t, b, cfg)
	rev := revision("rev_1")
	rev.Config.Scale.KeepAlive = functions.Duration(time.Second)
	deploy(t, b, rev)
	in := w.next(bus.ActionStart).Instance
	w.ready(in)
	if c := w.next(bus.ActionStop); c.Instance != in {
		t.Errorf("%s was stopped, want %s", c.Instance, in)
	}
}

func TestARestartLearnsWhatRuns(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	stop := run(t, b, quick())
	rev := revision("rev_1")
	rev.Config.Scale.Min = 2
	deploy(t, b, rev)
	w.ready(w.next(bus.ActionStart).Instance)
	w.ready(w.next(bus.ActionStart).Instance)
	stop()

	run(t, b, quick())
	demand(t, b, 1, 1)
	var o bus.Overview
	for len(o.Functions) == 0 || o.Functions[0].Desired == 0 || len(o.Instances) < 2 {
		o = ask[bus.Overview](t, b, bus.SubjectOverview, nil)
	}
	if len(o.Instances) != 2 || o.Functions[0].Ready != 2 || o.Functions[0].Starting != 0 || o.Functions[0].Desired != 2 {
		t.Errorf("after the restart: %+v, %d instances", o.Functions[0], len(o.Instances))
	}
	if want := rev.Config.Limits.Resources(); o.Nodes[0].Reserved != want.Add(want) {
		t.Errorf("reserved %s", o.Nodes[0].Reserved)
	}
	for {
		select {
		case c := <-w.commands:
			// That it is asked for a report changes nothing; on a slow machine one may have been missed.
			if c.Action != bus.ActionReport {
				t.Errorf("after the restart: %s %s", c.Action, c.Instance)
			}
		default:
			return
		}
	}
}

func TestWhatACrashLeftHalfWrittenIsFinished(t *testing.T) {
	for name, state := range map[string]functions.RevisionState{"ready": functions.RevisionReady, "failed": functions.RevisionFailed} {
		t.Run(name, func(t *testing.T) {
			b := openBus(t)
			w := startWorker(t, b)
			rev := revision("rev_1")
			rev.State = state
			deploy(t, b, rev)
			run(t, b, quick())
			if state == functions.RevisionReady {
				w.ready(w.next(bus.ActionStart).Instance)
			}
			fn := awaitFunction(t, b, func(f functions.Function) bool { return f.Candidate == "" })
			if (fn.Live == "rev_1") != (state == functions.RevisionReady) {
				t.Errorf("live is %q", fn.Live)
			}
			if r := getRevision(t, b, "rev_1"); r.State != state {
				t.Errorf("revision is %s", r.State)
			}
		})
	}
}

func TestADeletedFunctionLosesItsInstances(t *testing.T) {
	b := openBus(t)
	w := startWorker(t, b)
	run(t, b, quick())
	deploy(t, b, revision("rev_1"))
	in := w.next(bus.ActionStart).Instance
	w.ready(in)
	awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_1" })
	for _, err := range []error{
		b.Functions().Delete(t.Context(), bus.FunctionKey(hello)),
		b.Revisions().Delete(t.Context(), bus.RevisionKey(hello, "rev_1")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := w.next(bus.ActionDrain); c.Instance != in {
		t.Errorf("drained %s", c.Instance)
	}
	for o := (bus.Overview{Functions: make([]bus.FunctionStatus, 1)}); len(o.Functions) > 0; {
		o = ask[bus.Overview](t, b, bus.SubjectOverview, nil)
	}
}

func TestQuotaRefusalIsExplained(t *testing.T) {
	b := openBus(t)
	startWorker(t, b)
	if _, err := b.Quotas().Put(t.Context(), bus.QuotaKey(hello.Namespace), functions.Quota{Schema: 1, Namespace: hello.Namespace, CPU: 100}); err != nil {
		t.Fatal(err)
	}
	run(t, b, quick())
	deploy(t, b, revision("rev_1"))
	awaitFunction(t, b, func(f functions.Function) bool { return f.Candidate == "" })
	const want = "quota of namespace default: cpu: 250m needed, 0m of 100m used; try tatami quota set default --cpu 250m"
	if r := getRevision(t, b, "rev_1"); r.State != functions.RevisionFailed || r.Reason != want {
		t.Errorf("revision %s: %q", r.State, r.Reason)
	}
	e := ask[bus.Explanation](t, b, bus.SubjectExplain, bus.ExplainRequest{Schema: 1, Function: &hello})
	told := slices.ContainsFunc(e.Lines, func(l bus.ExplanationLine) bool { return l.Text == "revision rev_1 failed: "+want })
	if !e.Found || len(e.Nodes) != 1 || !told {
		t.Errorf("explanation %+v", e)
	}
	if e := ask[bus.Explanation](t, b, bus.SubjectExplain, bus.ExplainRequest{Schema: 1, Instance: "ins_x"}); e.Found {
		t.Errorf("an unknown instance was found: %+v", e)
	}
}

// A node's intent is taken from the store, at the start and when it changes.
func TestANodesIntentOutlivesARestart(t *testing.T) {
	t.Parallel()
	b := openBus(t)
	w := startWorker(t, b)
	intent := func() functions.NodeIntent {
		o := ask[bus.Overview](t, b, bus.SubjectOverview, nil)
		if len(o.Nodes) == 0 {
			return ""
		}
		return o.Nodes[0].Intent
	}
	await := func(want functions.NodeIntent) {
		t.Helper()
		for end := time.Now().Add(patience); intent() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the intent is %q, want %q", intent(), want)
			}
		}
	}
	stop := run(t, b, quick())
	await(functions.NodeOpen)
	set := functions.NodeSettings{Schema: 1, Node: w.node, Intent: functions.NodeDrained, Reason: "kernel"}
	if _, err := b.Nodes().Put(t.Context(), bus.NodeKey(w.node), set); err != nil {
		t.Fatal(err)
	}
	await(functions.NodeDrained)
	stop()
	stop = run(t, b, quick())
	defer stop()
	await(functions.NodeDrained)
	if err := b.Nodes().Delete(t.Context(), bus.NodeKey(w.node)); err != nil {
		t.Fatal(err)
	}
	await(functions.NodeOpen)
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := scheduler.New(scheduler.Config{Tick: -1}, nil, nil); fault.CodeOf(err) != fault.CodeInvalidRequest {
		t.Errorf("a negative tick: %v", err)
	}
}

// A worker may say what it likes on its own subject; it speaks for its own node only.
func TestAReportForAnotherNodeIsRefused(t *testing.T) {
	b := openBus(t)
	run(t, b, quick())
	forged := bus.Report{Envelope: bus.Envelope{Schema: bus.Schema, Boot: "x", Node: functions.NewNodeID(), Sequence: 1}, Full: true}
	if err := bus.Publish(b, bus.ReportSubject(functions.NewNodeID()), forged); err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, b)
	w.full()
	// The worker's own report comes behind the other one.
	var o bus.Overview
	for len(o.Nodes) == 0 {
		o = ask[bus.Overview](t, b, bus.SubjectOverview, nil)
	}
	if len(o.Nodes) != 1 || o.Nodes[0].ID != w.node {
		t.Errorf("nodes %+v", o.Nodes)
	}
}
