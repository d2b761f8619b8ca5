package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/worker"
)

func TestFromCommandToReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.begin(revision("late:20ms"))
	r := w.state(id, functions.InstanceReady)
	if r.Ref() != (functions.Ref{Namespace: "shop", Name: "cart"}) || r.Slots != 2 || r.PID == 0 || r.Adopted || r.Reserved.Instances != 1 {
		t.Errorf("report %+v", r)
	}
	p := r.Phases
	if p.Place.Std() < 3*time.Millisecond || p.Prepare <= 0 || p.Create <= 0 || p.Start <= 0 || p.Ready.Std() < 10*time.Millisecond {
		t.Errorf("phases %+v", p)
	}
	// The table comes before the report that says the same.
	table := w.await(0, "endpoint", func(m message) bool {
		return m.table != nil && slices.ContainsFunc(m.table.Endpoints, func(e bus.Endpoint) bool { return e.Instance == id })
	})
	report := w.await(0, "ready", func(m message) bool {
		return m.report != nil && slices.ContainsFunc(m.report.Instances, func(r bus.InstanceReport) bool {
			return r.Instance == id && r.State == functions.InstanceReady
		})
	})
	if table > report {
		t.Errorf("the endpoint is message %d, after the report, message %d", table, report)
	}
	e := w.messages()[table].table.Endpoints[0]
	if e.Slots != 2 || e.Revision != r.Revision || e.Ready.Before(e.Started) || e.Node != w.cfg.Node {
		t.Errorf("endpoint %+v", e)
	}
	env := w.driver.specs[0].Env
	for _, want := range []string{
		"PORT=8080", "K_SERVICE=cart", "K_REVISION=rev_abcdefghijklmnop", "K_CONFIGURATION=cart", "TATAMI_FUNCTION=cart",
		"TATAMI_NAMESPACE=shop", "TATAMI_REVISION=rev_abcdefghijklmnop", "TATAMI_INSTANCE=" + string(id), "COLOUR=blue",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	if second := w.state(w.begin(revision()), functions.InstanceReady); second.Phases.Prepare != 0 {
		t.Errorf("the artifact was prepared twice: %+v", second.Phases)
	}
}

func TestARequestReachesTheInstance(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.worker.Dial(ctx, w.cfg.Node, id)
	}}}
	resp, err := client.Get("http://x/path")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != string(id)+" /path" {
		t.Fatalf("body %q, error %v", body, err)
	}
	w.worker.Release(w.cfg.Node, id)
	var out bytes.Buffer
	code, err := w.worker.Exec(t.Context(), id, []string{"ls"}, strings.NewReader("in"), &out, io.Discard)
	if code != 3 || err != nil || out.String() != "[ls] in" {
		t.Errorf("exec: %d, %v, %q", code, err, out.String())
	}
	list := w.worker.Instances()
	if len(list) != 1 || list[0].LastUsed.Before(begun) || list[0].LastUsed.After(time.Now()) || list[0].Held != 0 {
		t.Errorf("instances %+v", list)
	}
	// The next full report carries what the sandbox uses.
	w.await(0, "usage", func(m message) bool {
		return m.report != nil && m.report.Full && len(m.report.Instances) == 1 && m.report.Instances[0].Usage.Memory == 7*functions.MiB
	})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	w.admit(id)
	for name, err := range map[string]error{
		"a third slot":     w.worker.Admit(w.cfg.Node, id),
		"another node":     w.worker.Admit(functions.NewNodeID(), id),
		"unknown instance": w.worker.Admit(w.cfg.Node, functions.NewInstanceID()),
	} {
		if !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A stop is refused while a slot is held, and the refusal shows why.
	n := len(w.messages())
	w.tell(id, bus.ActionStop, "idle for 5m", time.Time{})
	w.await(n, "a delta after a refused stop", func(m message) bool {
		return m.report != nil && !m.report.Full && m.report.Instances[0].Held == 2 && m.report.Instances[0].State == functions.InstanceReady
	})
	w.worker.Release(w.cfg.Node, id)
	w.worker.Release(w.cfg.Node, id)
	w.tell(id, bus.ActionStop, "idle for 5m", time.Time{})
	d := w.departure(id, nil)
	if d.Failed != nil || d.Reason != "idle for 5m" {
		t.Errorf("departure %+v", d)
	}
	if r := w.state(id, functions.InstanceStopped); r.Reason != "idle for 5m" || r.Exit == nil {
		t.Errorf("report %+v", r)
	}
	if err := w.worker.Admit(w.cfg.Node, id); !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("a slot of one that is gone: %v", err)
	}
	w.worker.Release(w.cfg.Node, id)
}

// Requests come and go while the scheduler tries to stop and finally drains: a held slot always has its process, and no more slots
// are given than there are.
func TestNoRequestLosesItsInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	box := w.driver.box(id)
	var held, served atomic.Int64
	var over atomic.Bool
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range 6 {
		wg.Go(func() {
			<-begin
			for !over.Load() {
				if w.worker.Admit(w.cfg.Node, id) != nil {
					time.Sleep(10 * time.Microsecond)
					continue
				}
				if n := held.Add(1); n > 2 {
					t.Errorf("%d slots are held", n)
				}
				select {
				case <-box.done:
					t.Error("a slot is held and the process is gone")
				case <-time.After(50 * time.Microsecond):
				}
				served.Add(1)
				held.Add(-1)
				w.worker.Release(w.cfg.Node, id)
			}
		})
	}
	// In the first half one slot is held all the time: no stop may succeed. In the second one may.
	w.admit(id)
	held.Add(1)
	close(begin)
	for i := range 200 {
		w.tell(id, bus.ActionStop, "idle", time.Time{})
		if i != 100 {
			continue
		}
		for served.Load() < 10 {
			time.Sleep(time.Millisecond)
		}
		held.Add(-1)
		w.worker.Release(w.cfg.Node, id)
	}
	w.tell(id, bus.ActionDrain, "deleted", time.Now().Add(time.Hour))
	w.state(id, functions.InstanceStopped)
	over.Store(true)
	wg.Wait()
}

func TestCommandsMayBeRepeatedAndComeLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	rev := revision()
	id := w.serving(rev)
	again := bus.Command{Envelope: bus.Envelope{Instance: id}, Action: bus.ActionStart, Revision: rev}
	n := len(w.messages())
	w.command(again)
	w.await(n, "an answer to the repeated start", func(m message) bool { return m.report != nil && !m.report.Full })
	w.tell(id, bus.ActionStop, "idle", time.Time{})
	w.state(id, functions.InstanceStopped)
	n = len(w.messages())
	w.command(again)
	w.tell(id, bus.ActionStop, "idle", time.Time{})
	w.tell(id, bus.ActionDrain, "idle", time.Time{})
	told := 0
	w.await(n, "the end told again, three times", func(m message) bool {
		if m.report == nil || m.report.Full {
			return false
		}
		for _, r := range m.report.Instances {
			if r.Instance == id && r.State == functions.InstanceStopped {
				told++
			}
		}
		return told == 3
	})
	if len(w.driver.specs) != 1 {
		t.Errorf("%d sandboxes were made", len(w.driver.specs))
	}
	// A newer scheduler takes over; then the older one has no say.
	next := functions.NewInstanceID()
	w.command(bus.Command{Envelope: bus.Envelope{Instance: next, Epoch: 7}, Action: bus.ActionStart, Revision: rev})
	w.state(next, functions.InstanceReady)
	w.tell(next, bus.ActionStop, "from an older one", time.Time{})
	old := w.begin(rev)
	w.command(bus.Command{Envelope: bus.Envelope{Instance: next, Epoch: 7}, Action: bus.ActionStop, Reason: "from the newer one"})
	if r := w.state(next, functions.InstanceStopped); r.Reason != "from the newer one" {
		t.Errorf("reason %q", r.Reason)
	}
	if w.driver.box(old) != nil || len(w.driver.specs) != 2 {
		t.Error("an older scheduler's start was obeyed")
	}
}

// What the scheduler missed it is told when it asks: about one instance, one that ended too, or everything, the artifacts among it.
func TestAReportIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, gone := w.serving(revision()), w.serving(revision())
	w.tell(gone, bus.ActionStop, "idle", time.Time{})
	w.state(gone, functions.InstanceStopped)
	for _, tc := range []struct {
		id    functions.InstanceID
		state functions.InstanceState
	}{{id, functions.InstanceReady}, {gone, functions.InstanceStopped}} {
		n := len(w.messages())
		w.tell(tc.id, bus.ActionReport, "it may be idle", time.Time{})
		w.await(n, "a report of "+string(tc.id)+" alone", func(m message) bool {
			return m.report != nil && !m.report.Full && len(m.report.Instances) == 1 && m.report.Instances[0].Instance == tc.id && m.report.Instances[0].State == tc.state
		})
	}
	n := len(w.messages())
	w.tell("", bus.ActionReport, "a report was missed", time.Time{})
	w.await(n, "a full report that lists the artifacts", func(m message) bool {
		return m.report != nil && m.report.Full && !m.report.State.ArtifactsKept && len(m.report.Instances) == 1
	})
}

func TestNonsenseChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	rev := revision()
	for _, c := range []bus.Command{
		{Envelope: bus.Envelope{Schema: bus.Schema + 1, Node: w.cfg.Node, Instance: functions.NewInstanceID()}, Action: bus.ActionStart, Revision: rev},
		{Envelope: bus.Envelope{Schema: bus.Schema, Node: functions.NewNodeID(), Epoch: 1, Instance: functions.NewInstanceID()}, Action: bus.ActionStart, Revision: rev},
		{Envelope: bus.Envelope{Schema: bus.Schema, Node: w.cfg.Node, Epoch: 1, Instance: "../../x"}, Action: bus.ActionStart, Revision: rev},
		{Envelope: bus.Envelope{Schema: bus.Schema, Node: w.cfg.Node, Epoch: 1, Instance: functions.NewInstanceID()}, Action: bus.ActionStart},
		{Envelope: bus.Envelope{Schema: bus.Schema, Node: w.cfg.Node, Epoch: 1, Instance: functions.NewInstanceID()}, Action: "explode"},
	} {
		if err := bus.Publish(w.bus, bus.CommandSubject(w.cfg.Node), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.bus.Conn().Publish(bus.CommandSubject(w.cfg.Node), []byte("{")); err != nil {
		t.Fatal(err)
	}
	w.serving(rev)
	if len(w.driver.specs) != 1 {
		t.Errorf("%d sandboxes were made", len(w.driver.specs))
	}
}

func TestFailuresSayWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	quick := func(r *functions.Revision) *functions.Revision {
		r.Config.Readiness.Timeout = functions.Duration(100 * time.Millisecond)
		return r
	}
	// Within its time it must have answered once.
	path := revision("status:503")
	path.Config.Readiness.Timeout = functions.Duration(2 * time.Second)
	path.Config.Readiness.Path = "/ready"
	missing := revision()
	missing.Artifact.Name, missing.Artifact.Digest = "missing", "sha256:"+strings.Repeat("1", 64)
	away := revision()
	away.Artifact.Name, away.Artifact.Digest = "away", "sha256:"+strings.Repeat("3", 64)
	for _, c := range []struct {
		name, reason string
		rev          *functions.Revision
	}{
		{"store away", "the store of images is away", away},
		{"exits", "exited with code 2 before it listened on port 8080", revision("print:no database", "exit:2")},
		{"segfaults", "exited with code 139 (segmentation fault) before it listened on port 8080", revision("exit:139")},
		{"ends unseen", "exited with code 255 (or its end was not seen) before it listened on port 8080", revision("exit:255")},
		{"eats memory", "killed by the kernel: out of memory (limit 128 MiB) before it listened on port 8080", revision("oom")},
		{"never listens", "not ready within 100ms: nothing listens on port 8080 (the function must listen on $PORT)", quick(revision("print:no database", "never"))},
		{"says no", "not ready within 2s: GET /ready answered 503 (see readiness in tatami.yaml)", path},
		{"no image", "image missing is not there (push it first)", missing},
	} {
		id := w.begin(c.rev)
		r := w.state(id, functions.InstanceFailed, functions.InstanceReady)
		if r.State != functions.InstanceFailed {
			t.Fatalf("%s: it is %s", c.name, r.State)
		}
		d := w.departure(id, nil)
		if d.State != functions.InstanceFailed || d.Reason != c.reason || d.Failed == nil || d.Failed.Function != "cart" {
			t.Errorf("%s: departure %+v, want %q", c.name, d, c.reason)
		}
		if r.Reason != c.reason {
			t.Errorf("%s: report %q", c.name, r.Reason)
		}
		if r.Unavailable != (c.rev == away) {
			t.Errorf("%s: whether something was away is told as %v", c.name, r.Unavailable)
		}
		if strings.Contains(strings.Join(c.rev.Config.Command, " "), "print") &&
			(!slices.Equal(r.Logs, []string{"no database"}) || !slices.Equal(d.Failed.Logs, r.Logs)) {
			t.Errorf("%s: logs %q and %q", c.name, r.Logs, d.Failed.Logs)
		}
		if w.driver.box(id) != nil {
			t.Errorf("%s: the sandbox is still there", c.name)
		}
	}
}

func TestReadinessPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	rev := revision("status:302", "late:10ms")
	rev.Config.Readiness.Path = "/ready?deep=1"
	w.serving(rev)
	over := revision("h2c", "status:204")
	over.Config.Readiness.Path, over.Config.Protocol = "/ready", functions.ProtocolH2C
	w.serving(over)
}

func TestACrashAfterReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	w.driver.box(id).write(w.driver.box(id).Info().Stderr, "panic: nil map\nno newline at the end")
	w.driver.box(id).exit(functions.Exit{Code: 137, OOM: true})
	const reason = "killed by the kernel: out of memory (limit 128 MiB)"
	if d := w.departure(id, nil); d.Reason != reason || d.Failed != nil || d.State != functions.InstanceFailed {
		t.Errorf("departure %+v", d)
	}
	r := w.state(id, functions.InstanceFailed)
	if r.Reason != reason || r.Exit == nil || !r.Exit.OOM || !slices.Equal(r.Logs, []string{"panic: nil map", "no newline at the end"}) {
		t.Errorf("report %+v", r)
	}
	w.worker.Release(w.cfg.Node, id)
	// Its log is still to be had, by instance as well.
	var got []string
	err := w.worker.Logs(t.Context(), bus.LogQuery{Instance: id}, func(l bus.LogLine) error {
		got = append(got, l.Stream+" "+l.Text)
		return nil
	})
	want := []string{"stderr panic: nil map", "stderr no newline at the end", "tatami " + reason}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("log %q, error %v", got, err)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	w.tell(id, bus.ActionDrain, "replaced by rev_x", time.Now().Add(time.Hour))
	w.departure(id, nil)
	if err := w.worker.Admit(w.cfg.Node, id); err == nil {
		t.Error("a draining instance took a request")
	}
	// The running invocation may still connect.
	conn, err := w.worker.Dial(t.Context(), w.cfg.Node, id)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if r := w.state(id, functions.InstanceDraining); r.Held != 1 || r.Reason != "replaced by rev_x" {
		t.Errorf("report %+v", r)
	}
	w.worker.Release(w.cfg.Node, id)
	if r := w.state(id, functions.InstanceStopped); r.Reason != "replaced by rev_x" {
		t.Errorf("report %+v", r)
	}
}

func TestADrainEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision("stubborn"))
	w.admit(id)
	w.tell(id, bus.ActionDrain, "deleted", time.Now().Add(time.Hour))
	w.state(id, functions.InstanceDraining)
	// A second drain may only bring the end nearer.
	w.tell(id, bus.ActionDrain, "deleted", time.Now().Add(30*time.Millisecond))
	r := w.state(id, functions.InstanceStopped)
	if r.Reason != "deleted; ended by drain deadline with 1 invocations running" || r.Exit.Code != 137 {
		t.Errorf("report %+v", r)
	}
}

// A gateway that gives up what an instance runs has it stopped, although its slot is held.
func TestAnInstanceIsEndedByItsGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	if err := w.worker.End("nod_other", id, "stuck"); err == nil {
		t.Error("another node's instance is ended")
	}
	if err := w.worker.End(w.cfg.Node, id, "stuck"); err != nil {
		t.Fatal(err)
	}
	if r := w.state(id, functions.InstanceStopped); !strings.HasPrefix(r.Reason, "stuck") {
		t.Errorf("report %+v", r)
	}
	if err := w.worker.End(w.cfg.Node, id, "stuck"); err != nil {
		t.Errorf("an instance that is gone: %v", err)
	}
}

func TestAStartIsCalledOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	endless := revision()
	endless.Artifact.Name, endless.Artifact.Digest = "endless", "sha256:"+strings.Repeat("2", 64)
	for i, rev := range []*functions.Revision{revision("never"), endless} {
		id := w.begin(rev)
		w.state(id, functions.InstanceStarting)
		w.tell(id, []bus.Action{bus.ActionStop, bus.ActionDrain}[i], "no longer wanted", time.Time{})
		if r := w.state(id, functions.InstanceStopped); r.Reason != "no longer wanted" {
			t.Errorf("report %+v", r)
		}
	}
	for _, m := range w.messages() {
		if m.table != nil && len(m.table.Removed) > 0 {
			t.Errorf("a start that was called off failed somebody's waiters: %+v", m.table.Removed)
		}
	}
}

func TestStartsTakeTheirTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.StartConcurrency = 3; c.MaxInstances = 12 })
	w.driver.gate = make(chan struct{})
	var ids []functions.InstanceID
	for range 12 {
		ids = append(ids, w.begin(revision()))
	}
	over := w.begin(revision())
	if r := w.state(over, functions.InstanceFailed); r.Reason != "the node holds as many instances as it may" {
		t.Errorf("one too many: %+v", r)
	}
	most := func() int { w.driver.mu.Lock(); defer w.driver.mu.Unlock(); return w.driver.most }
	for deadline := time.Now().Add(patience); most() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d sandboxes are made at once", most())
		}
	}
	for range 12 {
		w.driver.gate <- struct{}{}
	}
	for _, id := range ids {
		w.state(id, functions.InstanceReady)
	}
	if most() != 3 {
		t.Errorf("%d sandboxes were made at once", most())
	}
}

func TestARemovalIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.driver.mu.Lock()
	w.driver.stopFails = 2
	w.driver.mu.Unlock()
	w.tell(id, bus.ActionStop, "idle", time.Time{})
	w.await(0, "the trouble", func(m message) bool {
		return m.report != nil && slices.ContainsFunc(m.report.Instances, func(r bus.InstanceReport) bool {
			return r.Instance == id && r.State == functions.InstanceDraining && r.Reason == "it could not be removed yet: busy"
		})
	})
	if r := w.state(id, functions.InstanceStopped); r.Reason != "idle" {
		t.Errorf("report %+v", r)
	}
}

func TestTheNodeSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, want := range []map[functions.Feature]string{nil, {functions.FeatureGVisor: "not installed"}, {}} {
		w.driver.mu.Lock()
		w.driver.lacks = want
		w.driver.mu.Unlock()
		w.await(len(w.messages()), fmt.Sprintf("lacking %v", want), func(m message) bool { return m.report != nil && maps.Equal(m.report.State.Lacks, want) })
	}
}

func TestWhoAsksGetsEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.ReportEvery = time.Hour; c.Labels = map[string]string{"zone": "a"} })
	id := w.serving(revision())
	n := len(w.messages())
	for _, subject := range []string{bus.SubjectReportsWanted, bus.SubjectEndpointsWanted} {
		if err := w.bus.Conn().Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	i := w.await(n, "full report", func(m message) bool { return m.report != nil && m.report.Full })
	r := w.messages()[i].report
	if len(r.Instances) != 1 || r.Instances[0].Instance != id || r.State.Name != "here" || r.State.Labels["zone"] != "a" ||
		r.State.Allocatable.CPU != 3600 || len(r.State.Artifacts) != 1 || r.Boot != w.bus.Boot() {
		t.Errorf("report %+v", r)
	}
	i = w.await(n, "full table", func(m message) bool { return m.table != nil && m.table.Full })
	if e := w.messages()[i].table.Endpoints; len(e) != 1 || e[0].Instance != id {
		t.Errorf("table %+v", e)
	}
	// Another node's table is not this one's: each time it is asked itself it answers once.
	const rounds = 20
	n = len(w.messages())
	for at := n; at < n+rounds; at++ {
		for _, node := range []functions.NodeID{functions.NewNodeID(), w.cfg.Node} {
			if err := w.bus.Conn().Publish(bus.SubjectEndpointsWanted, []byte(node)); err != nil {
				t.Fatal(err)
			}
			if err := w.bus.Conn().Flush(); err != nil {
				t.Fatal(err)
			}
		}
		w.await(at, "its own full table", func(m message) bool { return m.table != nil && m.table.Full })
	}
	if got := len(w.messages()) - n; got != rounds {
		t.Errorf("%d questions were answered with %d messages", rounds, got)
	}
	// Each subject's sequence has no gap.
	var tables, reports uint64
	for _, m := range w.messages() {
		if m.table != nil {
			if tables++; m.table.Sequence != tables {
				t.Errorf("table %d has sequence %d", tables, m.table.Sequence)
			}
		} else if reports++; m.report.Sequence != reports {
			t.Errorf("report %d has sequence %d", reports, m.report.Sequence)
		}
	}
}

func TestTheEndOfTheWorkerDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	busy, stuck := w.serving(revision()), w.begin(revision("never"))
	w.state(stuck, functions.InstanceStarting)
	w.admit(busy)
	w.stop()
	w.departure(busy, nil)
	w.await(0, "draining", func(m message) bool { return m.report != nil && m.report.State.Draining })
	select {
	case <-w.ended:
		t.Fatal("the worker ended while an invocation ran")
	default:
	}
	w.worker.Release(w.cfg.Node, busy)
	w.end()
	last := w.await(0, "departed", func(m message) bool { return m.report != nil && m.report.State.Departed && m.report.Full })
	if r := w.messages()[last].report; len(r.Instances) != 0 {
		t.Errorf("the last report is %+v", r)
	}
	for _, id := range []functions.InstanceID{busy, stuck} {
		if r := w.state(id, functions.InstanceStopped); r.Reason != "the worker is stopping" {
			t.Errorf("report %+v", r)
		}
	}
	if n := len(w.driver.all()); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := worker.Config{Capacity: functions.Resources{CPU: 2000, Memory: 4 * functions.GiB}}
	capacity, allocatable, err := c.Resources()
	if err != nil || capacity.Instances != 500 || allocatable != (functions.Resources{CPU: 1800, Memory: 4*functions.GiB - 512*functions.MiB, Instances: 500}) {
		t.Errorf("capacity %s, allocatable %s, error %v", capacity, allocatable, err)
	}
	c.Reserve.CPU = 2000
	if _, _, err := c.Resources(); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a reserve of everything: %v", err)
	}
	for i, bad := range []worker.Config{
		{}, {Node: functions.NewNodeID()}, {Node: functions.NewNodeID(), DataDir: "x", RunDir: "x", MaxInstances: 5001},
		{Node: functions.NewNodeID(), DataDir: "x", RunDir: "x", Grace: -1},
	} {
		if _, err := worker.New(bad, nil, nil, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// Artifacts may be thousands: full reports list those that came, and all where somebody asks.
func TestArtifactsAreListedWhenTheyCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	full := func(m message) bool { return m.report != nil && m.report.Full }
	lists := func(m message) bool { return full(m) && !m.report.State.ArtifactsKept }
	comes := func(m message) bool { return full(m) && len(m.report.State.Artifacts) > 0 }
	first := w.await(0, "the first full report", full)
	if r := w.messages()[first].report; r.State.ArtifactsKept || len(r.State.Artifacts) != 0 {
		t.Errorf("the first report: %+v", r.State)
	}
	rev := revision()
	id := w.serving(rev)
	at := w.await(first+1, "a report with the artifact", comes)
	for _, m := range w.messages()[first+1 : at] {
		if m.report != nil && (!m.report.State.ArtifactsKept || len(m.report.State.Artifacts) > 0) {
			t.Errorf("a report between: %+v", m.report.State)
		}
	}
	if got := w.messages()[at].report.State; !got.ArtifactsKept || !slices.Equal(got.Artifacts, []string{rev.Artifact.Digest}) {
		t.Errorf("listed %v, others kept: %t", got.Artifacts, got.ArtifactsKept)
	}
	next := w.await(at+1, "the next full report", full)
	if r := w.messages()[next].report; !r.State.ArtifactsKept || len(r.State.Artifacts) > 0 || len(r.Instances) != 1 || r.Instances[0].Instance != id {
		t.Errorf("the next full report: %+v", r)
	}
	if err := w.bus.Conn().Publish(bus.SubjectReportsWanted, nil); err != nil {
		t.Fatal(err)
	}
	all := w.await(next+1, "a list for who asks", lists)
	if got := w.messages()[all].report.State.Artifacts; !slices.Equal(got, []string{rev.Artifact.Digest}) {
		t.Errorf("listed for who asks: %v", got)
	}
}
