package invoke_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// demands delivers every demand message.
func (b *bed) demands() <-chan bus.Demand {
	b.t.Helper()
	got := make(chan bus.Demand, 1000)
	sub, err := b.bus.Conn().Subscribe(bus.SubjectDemand, func(m *nats.Msg) {
		d, err := bus.Decode[bus.Demand](m.Data)
		if err != nil {
			b.t.Error(err)
		}
		got <- d
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := b.bus.Conn().Flush(); err != nil {
		b.t.Fatal(err)
	}
	return got
}

func next(t *testing.T, ch <-chan bus.Demand) bus.Demand {
	t.Helper()
	select {
	case d := <-ch:
		return d
	case <-time.After(patience):
		t.Fatalf("no demand for %s", patience)
		panic("unreachable")
	}
}

var hello = functions.Ref{Namespace: "default", Name: "hello"}

// A request from zero: one message tells the need at once, the instance that comes serves it, and the answer shows where the time went.
func TestColdStart(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	s := httptest.NewServer(http.HandlerFunc(seen))
	defer s.Close()
	rev := b.deploy("hello", nil)
	demands := b.demands()
	go func() {
		for d := range demands {
			if len(d.Functions) == 1 && d.Functions[0].Waiting == 1 {
				f := d.Functions[0]
				if d.Schema != bus.Schema || d.Sequence == 0 || d.Boot == "" || d.Gateway == "" || f.Function != "hello" || f.InFlight != 0 || f.Backlog != 0 {
					t.Errorf("%+v", d)
				}
				time.Sleep(20 * time.Millisecond)
				ms := functions.Duration(time.Millisecond)
				b.node.start(t, rev, s.Listener.Addr().String(), functions.Phases{Place: ms, Create: 5 * ms, Start: 2 * ms, Ready: 3 * ms, Path: "attach"})
				return
			}
		}
	}()
	resp, _ := b.do("GET", "/fn/hello", nil)
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	timing := resp.Header.Get("Server-Timing")
	for _, want := range []string{"queue;dur=", "place;dur=1.000", "create;dur=5.000", "start;dur=2.000", "ready;dur=3.000", `path;desc="attach"`, "run;dur="} {
		if !strings.Contains(timing, want) {
			t.Errorf("Server-Timing %q lacks %s", timing, want)
		}
	}
	if resp, _ := b.do("GET", "/fn/hello", nil); strings.Contains(resp.Header.Get("Server-Timing"), "create") {
		t.Error("a warm call shows a start")
	}
	b.counted("two requests, one of them cold", func(s invoke.FunctionStats) bool { return s.ColdStarts == 1 && s.Requests == 2 })
	b.idle()
}

// Demand states levels: repeated while anything waits, and once more with zeros at the end of the traffic.
func TestDemandLevels(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 2 })
	release := make(chan struct{})
	demands := b.demands()
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { b.do("GET", "/fn/hello", nil) })
	}
	until := func(what string, cond func(bus.FunctionDemand) bool) bus.FunctionDemand {
		t.Helper()
		var last bus.FunctionDemand
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			if d := next(t, demands); len(d.Functions) == 1 {
				if last = d.Functions[0]; cond(last) {
					return last
				}
			}
		}
		t.Fatalf("no message with %s; the last was %+v", what, last)
		panic("unreachable")
	}
	for range 3 {
		until("5 waiting", func(d bus.FunctionDemand) bool { return d.Waiting == 5 && d.InFlight == 0 })
	}
	b.backend(rev, func(http.ResponseWriter, *http.Request) { <-release })
	d := until("3 waiting", func(d bus.FunctionDemand) bool { return d.Waiting == 3 && d.InFlight == 2 })
	if d.Concurrency < 4.9 || d.Concurrency > 5.1 {
		t.Errorf("mean concurrency %.2f of 5 requests", d.Concurrency)
	}
	b.inv.SetBacklog(hello, 7)
	until("a backlog", func(d bus.FunctionDemand) bool { return d.Backlog == 7 })
	b.inv.SetBacklog(hello, 0)
	released := time.Now()
	close(release)
	wg.Wait()
	until("zeros", func(d bus.FunctionDemand) bool {
		if quiet := d.Quiet.Std(); d.Waiting+d.Backlog+d.InFlight == 0 && (quiet <= 0 || quiet > time.Since(released)) {
			t.Errorf("quiet for %s, %s after the requests might end", quiet, time.Since(released))
		}
		d.Quiet = 0
		return d == bus.FunctionDemand{Namespace: "default", Function: "hello"}
	})
	select {
	case d := <-demands:
		t.Errorf("a message after the last: %+v", d)
	case <-time.After(1200 * time.Millisecond):
	}
	b.idle()
}

// First come, first served; no instance runs more than its slots.
// A new need is told alone and at once; what else there is waits for the next whole statement.
func TestANewNeedIsToldAlone(t *testing.T) {
	t.Parallel()
	tb := setup(t, invoke.Config{})
	demands := tb.demands()
	ctx, stop := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop()
	wait := func(name string) {
		tb.deploy(name, nil)
		waiting.Go(func() {
			if l, err := tb.inv.Lease(ctx, functions.Ref{Namespace: "default", Name: name}, invoke.Sync); err == nil {
				l.Release()
				t.Errorf("%s has an instance", name)
			}
		})
	}
	named := func(d bus.Demand) []string {
		var out []string
		for _, f := range d.Functions {
			out = append(out, f.Function)
		}
		return slices.Sorted(slices.Values(out))
	}
	for i, name := range []string{"one", "two"} {
		wait(name)
		d := next(t, demands)
		for !d.Partial {
			d = next(t, demands)
		}
		if got := named(d); !slices.Equal(got, []string{name}) || d.Functions[0].Waiting != 1 {
			t.Errorf("need %d: told %+v", i, d.Functions)
		}
	}
	d := next(t, demands)
	for d.Partial || len(d.Functions) < 2 {
		d = next(t, demands)
	}
	if got := named(d); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("everything: told %v", got)
	}
}

// What does not fit into one message is stated in parts, which name everything that is in use, each once.
func TestEverythingIsStatedInParts(t *testing.T) {
	t.Parallel()
	const count = 100
	tb := setup(t, invoke.Config{})
	demands := tb.demands()
	for i := range count {
		name := fmt.Sprintf("fn-%02d", i)
		tb.deploy(name, nil)
		tb.inv.SetBacklog(functions.Ref{Namespace: "default", Name: name}, i+1)
	}
	whole := func() map[string]int {
		for {
			got, part := map[string]int{}, 0
			for d := next(t, demands); ; d = next(t, demands) {
				if d.Part == 0 {
					continue
				}
				if part++; d.Part != part || !d.Partial {
					break
				}
				for _, f := range d.Functions {
					got[f.Function] += f.Backlog
				}
				if d.Last {
					return got
				}
			}
		}
	}
	for range 2 {
		got := whole()
		for len(got) < count {
			got = whole()
		}
		for i := range count {
			if name := fmt.Sprintf("fn-%02d", i); got[name] != i+1 {
				t.Errorf("%s: %d told of %d", name, got[name], i+1)
			}
		}
	}
}

func TestOrderAndSlots(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 1 })
	var order []string
	var mu sync.Mutex
	running, peak := 0, 0
	h := func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		order = append(order, r.URL.Path)
		running++
		peak = max(peak, running)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
	}
	var wg sync.WaitGroup
	var want []string
	for i := range 30 {
		path := fmt.Sprintf("/%d", i)
		want = append(want, path)
		wg.Go(func() { b.do("GET", "/fn/hello"+path, nil) })
		waitFor(t, func() bool { st := b.inv.Stats(); return len(st) == 1 && st[0].Waiting == i+1 })
	}
	b.backend(rev, h)
	wg.Wait()
	if peak != 1 || strings.Join(order, "") != strings.Join(want, "") {
		t.Errorf("%d ran at once, in the order %v", peak, order)
	}
	b.idle()
}

// The queue has its share of the slots while requests wait, and no more than that.
func TestAsyncShare(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 1 })
	var mu sync.Mutex
	var order []invoke.Class
	var wg sync.WaitGroup
	for i := range 40 {
		class := invoke.Class(i % 2)
		wg.Go(func() {
			l, err := b.inv.Lease(t.Context(), hello, class)
			if err != nil {
				t.Error(err)
				return
			}
			if l.Revision().ID != rev.ID || l.Endpoint().Revision != rev.ID || l.Waited() <= 0 {
				t.Errorf("%+v", l.Endpoint())
			}
			mu.Lock()
			order = append(order, class)
			mu.Unlock()
			l.Release()
			l.Release()
		})
	}
	demands := b.demands()
	for d := next(t, demands); len(d.Functions) != 1 || d.Functions[0].Waiting != 20 || d.Functions[0].Backlog != 20; {
		d = next(t, demands)
	}
	b.backend(rev, seen)
	wg.Wait()
	// While both wait, one of four is the queue's.
	async := 0
	for _, c := range order[:24] {
		if c == invoke.Async {
			async++
		}
	}
	if async != 6 {
		t.Errorf("%d of the first 24 are the queue's: %v", async, order)
	}
	b.idle()
}

func TestWaitingListFull(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{MaxWaiting: 3})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 1 })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if resp, body := b.do("GET", "/fn/hello", nil); resp.StatusCode != 200 {
				t.Errorf("%s %s", resp.Status, body)
			}
		})
	}
	waitFor(t, func() bool { st := b.inv.Stats(); return len(st) == 1 && st[0].Waiting == 3 })
	resp, body := b.do("GET", "/fn/hello", nil)
	b.wantFault(resp, body, "waiting-list-full", 503, "tatami explain hello")
	if resp.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
	b.backend(rev, seen)
	wg.Wait()
	b.idle()
}

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	const limit = 200 * time.Millisecond
	rev := b.deploy("hello", func(c *functions.Config) {
		c.Concurrency = 1
		c.Timeout = functions.Duration(limit)
	})
	resp, body := b.do("GET", "/fn/hello", nil)
	b.wantFault(resp, body, "start-timeout", 504, "no instance became ready", "timeout of "+limit.String())
	sub, err := b.bus.Conn().Subscribe(bus.SubjectOverview, func(m *nats.Msg) {
		_ = bus.Publish(b.bus, m.Reply, &bus.Overview{Schema: 1, Functions: []bus.FunctionStatus{{Namespace: "default", Function: "hello", Pending: "no node has room for 128 MiB"}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	// What was asked before is taken to hold for a second, and an answer that takes too long is not waited for.
	waitFor(t, func() bool {
		resp, body = b.do("GET", "/fn/hello", nil)
		b.wantFault(resp, body, "start-timeout", 504)
		return strings.Contains(body, "no node has room for 128 MiB")
	})
	b.backend(rev, seen)
	var l *invoke.Lease
	waitFor(t, func() bool {
		l, err = b.inv.Lease(t.Context(), hello, invoke.Sync)
		return err == nil
	})
	defer l.Release()
	resp, body = b.do("GET", "/fn/hello", nil)
	b.wantFault(resp, body, "start-timeout", 504, "all 1 slots of its instances were busy")

	// A lease for the queue waits until its context ends.
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if _, err := b.inv.Lease(ctx, hello, invoke.Async); fault.CodeOf(err) != fault.CodeStartTimeout || time.Since(begun) < 400*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

// Who waits learns that the instance did not start, unless another one runs or the failure is another revision's.
func TestStartFailure(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", nil)
	fail := func(id functions.RevisionID) {
		b.node.publish(t, bus.EndpointTable{Removed: []bus.Departure{{
			Instance: functions.NewInstanceID(), State: functions.InstanceFailed, Reason: "exited with code 3",
			Failed: &bus.StartFailure{Namespace: "default", Function: "hello", Revision: id, Logs: []string{"panic: no config"}},
		}}})
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			resp, body := b.do("GET", "/fn/hello", nil)
			b.wantFault(resp, body, "function-not-ready", 502, "exited with code 3", "panic: no config", "tatami logs hello")
		})
	}
	async := make(chan error, 1)
	go func() {
		_, err := b.inv.Lease(t.Context(), hello, invoke.Async)
		async <- err
	}()
	demands := b.demands()
	for d := next(t, demands); len(d.Functions) != 1 || d.Functions[0].Waiting != 3 || d.Functions[0].Backlog != 1; {
		d = next(t, demands)
	}
	fail("rev_other")
	fail(rev.ID)
	wg.Wait()
	if err := <-async; fault.CodeOf(err) != fault.CodeFunctionNotReady {
		t.Errorf("the queue's lease: %v", err)
	}
	b.idle()
}

// A redeploy strands nobody: who waits gets the new revision, who runs ends on the old one.
func TestRedeploy(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	tweak := func(v string) func(*functions.Config) {
		return func(c *functions.Config) {
			c.Concurrency = 1
			c.Env = map[string]string{"V": v}
		}
	}
	hold := make(chan struct{})
	old := b.deploy("hello", tweak("1"))
	oldInst := b.backend(old, func(w http.ResponseWriter, _ *http.Request) {
		<-hold
		_, _ = io.WriteString(w, "old")
	})
	answers := make(chan string, 10)
	ask := func() {
		resp, body := b.do("GET", "/fn/hello", nil)
		answers <- fmt.Sprint(resp.StatusCode, " ", body)
	}
	go ask()
	waitFor(t, func() bool { return b.node.held() == 1 })
	go ask()
	waitFor(t, func() bool { return b.inv.Stats()[0].Waiting == 1 })
	fresh := b.deploy("hello", tweak("2"))
	b.backend(fresh, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "new") })
	if got := <-answers; got != "200 new" {
		t.Errorf("who waited got %q", got)
	}
	b.node.publish(t, bus.EndpointTable{Removed: []bus.Departure{{Instance: oldInst, State: functions.InstanceDraining, Reason: "replaced"}}})
	close(hold)
	if got := <-answers; got != "200 old" {
		t.Errorf("who ran got %q", got)
	}
	// Deleted while somebody waits.
	l, err := b.inv.Lease(t.Context(), hello, invoke.Sync)
	if err != nil {
		t.Fatal(err)
	}
	go ask()
	waitFor(t, func() bool { return b.inv.Stats()[0].Waiting == 1 })
	if err := b.bus.Functions().Delete(t.Context(), "default.hello"); err != nil {
		t.Fatal(err)
	}
	if got := <-answers; !strings.HasPrefix(got, "404 ") {
		t.Errorf("who waited for a deleted function got %q", got)
	}
	l.Release()
	b.idle()
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	hold := make(chan struct{})
	for _, name := range []string{"hello.team", "other.team"} {
		b.backend(b.deploy(name, nil), func(http.ResponseWriter, *http.Request) { <-hold })
	}
	b.backend(b.deploy("free", nil), seen)
	quota := func(q functions.Quota) {
		q.Schema, q.Namespace = functions.Schema, "team"
		if _, err := b.bus.Quotas().Put(t.Context(), bus.QuotaKey("team"), q); err != nil {
			t.Fatal(err)
		}
	}
	quota(functions.Quota{Concurrent: 2})
	var refused atomic.Int64
	waitFor(t, func() bool { // until the quota holds
		// That a client has left is noticed a little later.
		b.idle()
		r, _ := http.NewRequest("GET", b.front.URL+"/fn/hello.team", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if resp, err := b.front.Client().Do(r.WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
		b.idle()
		var wg sync.WaitGroup
		refused.Store(0)
		for range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				if resp, err := b.front.Client().Do(r.WithContext(ctx)); err == nil {
					if resp.StatusCode == 429 && resp.Header.Get("Tatami-Error") == "quota-exceeded" && resp.Header.Get("Retry-After") != "" {
						refused.Add(1)
					}
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
		return refused.Load() == 1
	})
	b.idle()

	// Across the namespace's functions; the queue waits where a caller is refused.
	var leases []*invoke.Lease
	team := func(name string) functions.Ref { return functions.Ref{Namespace: "team", Name: name} }
	for _, name := range []string{"hello", "other"} {
		l, err := b.inv.Lease(t.Context(), team(name), invoke.Async)
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
	}
	resp, body := b.do("GET", "/fn/other.team", nil)
	b.wantFault(resp, body, "quota-exceeded", 429, "tatami quota set team")
	got := make(chan error, 2)
	for range 2 {
		go func() {
			l, err := b.inv.Lease(t.Context(), team("hello"), invoke.Async)
			if err == nil {
				l.Release()
			}
			got <- err
		}()
	}
	select {
	case err := <-got:
		t.Errorf("a lease beyond the quota: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	leases[0].Release()
	for range 2 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	leases[1].Release()
	if resp, _ := b.do("GET", "/fn/free", nil); resp.StatusCode != 200 {
		t.Errorf("another namespace: %s", resp.Status)
	}

	close(hold)
	quota(functions.Quota{Rate: 5})
	waitFor(t, func() bool {
		resp, body := b.do("GET", "/fn/hello.team", nil)
		if resp.StatusCode != 429 {
			return false
		}
		b.wantFault(resp, body, "rate-limited", 429, "5 invocations a second")
		return true
	})
	// One more may begin each fifth of a second.
	waitFor(t, func() bool {
		_, err := b.inv.AllowQueued(t.Context(), team("hello"))
		if err != nil && fault.CodeOf(err) != fault.CodeRateLimited {
			t.Errorf("the queue's way in: %v", err)
		}
		return err != nil
	})
	b.idle()
}

// What was missed is asked for: a gap, a new boot.
func TestEndpointTables(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", nil)
	s := httptest.NewServer(http.HandlerFunc(seen))
	defer s.Close()
	addr := s.Listener.Addr().String()
	get := func() string {
		r, _ := http.NewRequest("GET", b.front.URL+"/fn/hello", nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		resp, err := b.front.Client().Do(r.WithContext(ctx))
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		return resp.Status
	}
	asked := make(chan *nats.Msg, 100)
	if _, err := b.bus.Conn().ChanSubscribe(bus.SubjectEndpointsWanted, asked); err != nil {
		t.Fatal(err)
	}
	// The message about the instance is lost; the next one, about nothing, shows the gap.
	b.node.mu.Lock()
	lost := functions.NewInstanceID()
	b.node.insts[lost] = &inst{addr: addr, ep: bus.Endpoint{
		Instance: lost, Node: b.node.id, Namespace: "default", Function: "hello", Revision: rev.ID, Slots: 1,
	}}
	b.node.sequence++
	b.node.mu.Unlock()
	b.node.publish(t, bus.EndpointTable{})
	if got := get(); got != "200 OK" {
		t.Errorf("after a gap: %s", got)
	}
	// Only the node whose table has the gap is asked.
	select {
	case m := <-asked:
		if string(m.Data) != string(b.node.id) {
			t.Errorf("after a gap %q was asked", m.Data)
		}
	case <-time.After(patience):
		t.Error("nobody was asked")
	}
	// A new boot, with another instance and without the first.
	b.node.mu.Lock()
	delete(b.node.insts, lost)
	b.node.boot, b.node.sequence = "two", 0
	b.node.mu.Unlock()
	second := b.node.start(t, rev, addr, functions.Phases{})
	waitFor(t, func() bool { return get() == "200 OK" })
	b.node.mu.Lock()
	peak := b.node.insts[second].peak
	b.node.mu.Unlock()
	if peak != 1 {
		t.Error("the second instance served nothing")
	}
	// Nonsense is left alone.
	for _, table := range []bus.EndpointTable{
		{Endpoints: []bus.Endpoint{{Instance: "ins_x", Node: "nod_other", Namespace: "default", Function: "hello", Revision: rev.ID, Slots: 5}}},
		{Endpoints: []bus.Endpoint{{Instance: "ins_y", Node: b.node.id, Namespace: "default", Function: "hello", Revision: rev.ID}}},
	} {
		b.node.publish(t, table)
	}
	_ = b.bus.Conn().Publish(bus.EndpointsSubject(b.node.id), []byte("{"))
	for range 5 {
		if got := get(); got != "200 OK" {
			t.Errorf("after nonsense: %s", got)
		}
	}
	b.idle()
}
