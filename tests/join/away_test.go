package join

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/remote"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// names answers with the name of the node.
func names(name string) map[string]http.Handler {
	return map[string]http.Handler{"name": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
}

// A worker whose server is away keeps its instances, and tells what there is when it is back.
func TestTheServerGoesAndComes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	n := newNode(t, s, names("n"))
	rev := s.deploy("name", nil, n)
	stays := n.worker.Instances()[0].Instance
	dies := n.begin(s, rev)
	s.stop()
	n.until("the server is missed", func() bool { return !n.link.Conn().IsConnected() })
	n.driver.mu.Lock()
	victim := n.driver.boxes[dies]
	n.driver.mu.Unlock()
	victim.exit()
	n.until("an instance ends", func() bool { return len(n.worker.Instances()) == 1 })

	// The next server hears of what there is, whatever was said while nobody listened.
	s.start()
	reports := make(chan bus.Report, 1000)
	end, err := subscribe(s.bus, bus.ReportSubject(n.id()), reports)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = end() }()
	for over := time.After(patience); ; {
		select {
		case r := <-reports:
			if !r.Full {
				continue
			}
			if len(r.Instances) != 1 || r.Instances[0].Instance != stays || r.Instances[0].State != functions.InstanceReady {
				t.Errorf("the worker reports %+v", r.Instances)
			}
		case <-over:
			t.Fatal("the worker says nothing")
		}
		break
	}
	if status, body := s.get("/name/"); status != 200 || body != "n" {
		t.Errorf("%d %s", status, body)
	}
}

// Requests do without a worker that is out of reach, and have it back when it is there again with its instances.
func TestAWorkerGoesAndComes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, b := newNode(t, s, names("a")), newNode(t, s, names("b"))
	b.keep = true
	b.stop()
	b.start(s)
	s.deploy("name", func(c *functions.Config) { c.Concurrency = 1 }, a, b)
	answers := func() map[string]bool {
		var mu sync.Mutex
		var wg sync.WaitGroup
		out := map[string]bool{}
		for range 20 {
			wg.Go(func() {
				status, body := s.get("/name/")
				if status != 200 {
					t.Errorf("%d %s", status, body)
				}
				mu.Lock()
				out[body] = true
				mu.Unlock()
			})
		}
		wg.Wait()
		return out
	}
	s.until("both answer", func() bool { return len(answers()) == 2 })
	b.stop()
	if got := answers(); !got["a"] || got["b"] {
		t.Errorf("with one of them away %v answered", got)
	}
	b.start(s)
	s.until("both answer again", func() bool { return len(answers()) == 2 })
}

// A worker that stays out of reach is lost: its instances count no more, until it is back.
func TestAWorkerThatIsLost(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.stop()
	s.lost = 20 * time.Millisecond
	s.start()
	n := newNode(t, s, names("n"))
	n.keep = true
	n.stop()
	n.start(s)
	s.deploy("name", func(c *functions.Config) { c.Timeout = functions.Duration(500 * time.Millisecond) }, n)
	s.until("it answers", func() bool { status, _ := s.get("/name/"); return status == 200 })
	n.stop()
	// Before it is lost its slots count as busy; after that there are none.
	s.until("its instances count no more", func() bool {
		status, body := s.get("/name/")
		return status == 504 && strings.Contains(body, "no instance became ready")
	})
	n.start(s)
	s.until("it answers again", func() bool { status, _ := s.get("/name/"); return status == 200 })
}

// A worker that is removed gets no request any more, nor does what it says count; it learns of it, and the others go on.
func TestAWorkerThatIsRemoved(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	g := newGate()
	a, b := newNode(t, s, map[string]http.Handler{"name": g}), newNode(t, s, names("b"))
	rev := s.deploy("name", func(c *functions.Config) { c.Concurrency = 1 }, a)
	held := make(chan int, 1)
	go func() {
		status, _ := s.get("/name/")
		held <- status
	}()
	felt := g.await(t)
	b.begin(s, rev)
	if err := s.bus.Roster().Remove(a.id(), "a test"); err != nil {
		t.Fatal(err)
	}
	s.workers.Remove(a.id())
	s.invoker.Lose(a.id())
	select {
	case <-felt.Context().Done():
	case <-time.After(patience):
		t.Fatal("what ran on the removed worker still runs")
	}
	if status := <-held; status != http.StatusServiceUnavailable {
		t.Errorf("the request on the removed worker ended with %d", status)
	}
	s.invoker.Ask()
	for range 10 {
		if status, body := s.get("/name/"); status != 200 || body != "b" {
			t.Errorf("%d %s", status, body)
		}
	}
	a.until("it is cut off", func() bool { return !a.link.Conn().IsConnected() })
	if got := s.bus.Roster().Members(); len(got) != 1 || got[0] != b.id() {
		t.Errorf("may connect: %v", got)
	}
}

// The logs of all nodes are one; following it goes on when a worker is started again, and takes in one that joins.
func TestLogsOfManyNodes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, b := newNode(t, s, names("a")), newNode(t, s, names("b"))
	b.keep = true
	b.stop()
	b.start(s)
	rev := s.deploy("name", nil, a, b)
	if _, err := s.bus.Revisions().Put(t.Context(), bus.RevisionKey(rev.Ref(), rev.ID), *rev); err != nil {
		t.Fatal(err)
	}
	read := func(q bus.LogQuery) []string {
		q.Ref = rev.Ref()
		var out []string
		if err := s.workers.Logs(t.Context(), q, func(l bus.LogLine) error { out = append(out, l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	var want []string
	for i := range 6 {
		n := []*node{a, b}[i%2]
		line := fmt.Sprintf("line %d", i)
		n.say(line)
		want = append(want, line)
		s.until(line+" is kept", func() bool { return slices.Equal(read(bus.LogQuery{}), want) })
	}
	if got := read(bus.LogQuery{Tail: 3}); !slices.Equal(got, want[3:]) {
		t.Errorf("the last three are %q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- s.workers.Logs(ctx, bus.LogQuery{Ref: rev.Ref(), Tail: 2, Follow: true}, func(l bus.LogLine) error { lines <- l.Text; return nil })
	}()
	expect := func(text string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != text {
				t.Fatalf("heard %q, want %q", got, text)
			}
		case <-time.After(patience):
			t.Fatalf("%q is not heard", text)
		}
	}
	expect("line 4")
	expect("line 5")
	a.say("from a")
	expect("from a")
	b.stop()
	b.start(s)
	b.say("from b, again")
	expect("from b, again")
	c := newNode(t, s, names("c"))
	c.begin(s, rev)
	c.say("from c")
	expect("from c")
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the end of following: %v", err)
	}
}

func TestExecElsewhere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	n := newNode(t, s, names("n"))
	s.deploy("name", nil, n)
	inst := n.worker.Instances()[0].Instance
	w := remote.New(remote.Config{TLS: s.bus.WorkerTLS, Node: s.bus.Identity().Node, Locate: func(_ context.Context, id functions.InstanceID) (functions.NodeID, error) {
		if id != inst {
			return "", fault.New(fault.CodeNotFound, "there is no %s", id)
		}
		return n.id(), nil
	}}, quiet())
	tables := make(chan bus.EndpointTable, 100)
	sub, err := subscribe(s.bus, bus.EndpointsSubject(n.id()), tables)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub() }()
	s.invoker.Ask()
	table := <-tables
	w.Heard(&table)
	var stdout, stderr bytes.Buffer
	code, err := w.Exec(t.Context(), inst, []string{"a", "b"}, strings.NewReader(strings.Repeat("x", 1<<20)), &stdout, &stderr)
	if err != nil || code != 7 || stdout.String() != "[a b] 1048576" || stderr.String() != "err" {
		t.Errorf("%d, %v, %q, %q", code, err, stdout.String(), stderr.String())
	}
	if _, err := w.Exec(t.Context(), "ins_none", nil, strings.NewReader(""), &stdout, &stderr); !fault.Is(err, fault.CodeNotFound) {
		t.Errorf("in an instance that is not there: %v", err)
	}
	if _, err := w.Exec(t.Context(), inst, nil, strings.NewReader(""), &stdout, &stderr); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("of nothing: %v", err)
	}
}
