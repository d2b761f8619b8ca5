package intake_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/intake"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A request is answered with the id of an invocation that is in the store, and its end comes on result.{id}.
func TestARequestIsAnInvocation(t *testing.T) {
	t.Parallel()
	w := start(t, intake.Config{}, nil)
	nc, caller := w.client("default")
	results := make(chan *nats.Msg, 10)
	if _, err := nc.ChanSubscribe("result.*", results); err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("fn.default.echo")
	m.Data = []byte("work")
	m.Header = nats.Header{
		"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "content-type": {"text/plain"}, "X-Own": {"a", "b"},
		"Tatami-Path": {"/a%20b?c=d"}, "Tatami-Caller": {"tok_somebodyelse"}, "Nats-Msg-Id": {"x"}, "Connection": {"close"}, "Tatami-Attempt": {"9"},
	}
	id := idOf(t, ask(t, nc, m))
	if st := w.ended(id); st.State != functions.StateSucceeded || string(st.Result.Body) != "work" {
		t.Fatalf("%+v", st)
	}
	w.path.mu.Lock()
	r := w.path.seen[0]
	w.path.mu.Unlock()
	if r.Method != http.MethodPost || r.URL.EscapedPath() != "/a%20b" || r.URL.RawQuery != "c=d" {
		t.Errorf("%s %s", r.Method, r.URL)
	}
	for k, want := range map[string][]string{
		"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Content-Type": {"text/plain"}, "X-Own": {"a", "b"},
		"Tatami-Caller": {caller.ID}, "Nats-Msg-Id": nil, "Connection": nil, "Tatami-Attempt": {"1"}, "Tatami-Path": nil,
	} {
		if !slices.Equal(r.Header[k], want) {
			t.Errorf("%s is %q, want %q", k, r.Header[k], want)
		}
	}
	select {
	case got := <-results:
		var st struct {
			ID    functions.InvocationID `json:"id"`
			State string                 `json:"state"`
			Body  string                 `json:"body"`
		}
		if err := json.Unmarshal(got.Data, &st); err != nil || got.Subject != "result."+string(id) || st.ID != id || st.State != "succeeded" || st.Body != "work" {
			t.Errorf("%s: %s, %v", got.Subject, got.Data, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("no result came")
	}
}

// What goes wrong is answered as over HTTP, with the kind of the one table.
func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	w := start(t, intake.Config{MaxBody: 100}, nil)
	nc, _ := w.client("default")
	for name, c := range map[string]struct {
		subject string
		header  nats.Header
		body    string
		code    fault.Code
	}{
		"no function":   {subject: "fn.default.nobody", code: fault.CodeFunctionNotFound},
		"bad name":      {subject: "fn.default.UPPER", code: fault.CodeFunctionNotFound},
		"bad delay":     {subject: "fn.default.echo", header: nats.Header{"Tatami-Delay": {"soon"}}, code: fault.CodeInvalidRequest},
		"two keys":      {subject: "fn.default.echo", header: nats.Header{"Idempotency-Key": {"a"}, "idempotency-key": {"b"}}, code: fault.CodeInvalidRequest},
		"bad path":      {subject: "fn.default.echo", header: nats.Header{"Tatami-Path": {"no/slash"}}, code: fault.CodeInvalidRequest},
		"large body":    {subject: "fn.default.echo", body: strings.Repeat("x", 101), code: fault.CodeBodyTooLarge},
		"far away":      {subject: "fn.default.echo", header: nats.Header{"Tatami-Delay": {"9999h"}}, code: fault.CodeInvalidRequest},
		"bad order key": {subject: "fn.default.echo", header: nats.Header{"Tatami-Ordering-Key": {""}}, code: fault.CodeInvalidRequest},
	} {
		m := nats.NewMsg(c.subject)
		m.Header, m.Data = c.header, []byte(c.body)
		out := ask(t, nc, m)
		var p problem.Problem
		if err := json.Unmarshal(out.Data, &p); err != nil || p.Code != c.code || p.Kind != c.code.Kind().String() || p.Status != c.code.Status() || p.Detail == "" {
			t.Errorf("%s: %s, %v", name, out.Data, err)
		}
		if out.Header.Get("Tatami-Error") != string(c.code) || out.Header.Get("Content-Type") != problem.ContentType {
			t.Errorf("%s: header %v", name, out.Header)
		}
	}
}

// The headers of the queue mean what they mean over HTTP; callers do not share keys.
func TestTheHeadersOfTheQueue(t *testing.T) {
	t.Parallel()
	w := start(t, intake.Config{}, nil)
	nc, _ := w.client("default")
	other, _ := w.client("default", "shop")
	send := func(nc *nats.Conn, h nats.Header) *nats.Msg {
		m := nats.NewMsg("fn.default.echo")
		m.Header, m.Data = h, []byte("same")
		return ask(t, nc, m)
	}
	key := nats.Header{"Idempotency-Key": {"k1"}}
	first, again := send(nc, key), send(nc, key)
	if id := idOf(t, first); idOf(t, again) != id || again.Header.Get("Idempotency-Replayed") != "true" || first.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%v and %v", first.Header, again.Header)
	}
	if foreign := send(other, key); idOf(t, foreign) == idOf(t, first) {
		t.Error("two callers share a key")
	}
	later := idOf(t, send(nc, nats.Header{"Tatami-Delay": {"1h"}}))
	if st, err := w.q.Lookup(t.Context(), later, 0); err != nil || st.State != functions.StateScheduled {
		t.Errorf("%+v, %v", st, err)
	}
	// Whoever cancels it has the caller told.
	told := make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe("result."+string(later), told); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.q.Cancel(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-told:
		if !strings.Contains(string(m.Data), `"cancelled"`) {
			t.Errorf("%s", m.Data)
		}
	case <-time.After(time.Minute):
		t.Error("the end of a cancelled invocation was not told")
	}
}

// A message without a reply subject is accepted, too; what had come is accepted at the end.
func TestABareMessageIsAccepted(t *testing.T) {
	t.Parallel()
	w := start(t, intake.Config{AtOnce: 2}, nil)
	nc, _ := w.client("*")
	const n = 200
	for range n {
		if err := nc.Publish("fn.shop.echo", []byte("bare")); err != nil {
			t.Fatal(err)
		}
	}
	// An answer to what came behind them tells that they are there.
	idOf(t, ask(t, nc, nats.NewMsg("fn.shop.echo")))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w.path.mu.Lock()
		got := len(w.path.seen)
		w.path.mu.Unlock()
		if got == n+1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ran of %d", got, n+1)
		}
	}
}

// slow lets nothing through until it is told to.
type slow struct {
	intake.Queue
	entered chan struct{}
	open    chan struct{}
}

func (s *slow) Submit(ctx context.Context, r queue.Request) (queue.Receipt, error) {
	s.entered <- struct{}{}
	<-s.open
	return s.Queue.Submit(ctx, r)
}

// Messages wait in a list with a bound; what comes beyond it is refused at once, and what waits is accepted.
func TestTheListIsBounded(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]intake.Config{"messages": {AtOnce: 1, MaxWaiting: 2}, "bytes": {AtOnce: 1, MaxWaitingBytes: 8}} {
		s := &slow{entered: make(chan struct{}, 100), open: make(chan struct{})}
		w := start(t, cfg, func(q intake.Queue) intake.Queue { s.Queue = q; return s })
		nc, _ := w.client("default")
		var mu sync.Mutex
		var answers []*nats.Msg
		got := make(chan struct{}, 100)
		inbox := nats.NewInbox()
		if _, err := nc.Subscribe(inbox, func(m *nats.Msg) {
			mu.Lock()
			answers = append(answers, m)
			mu.Unlock()
			got <- struct{}{}
		}); err != nil {
			t.Fatal(err)
		}
		send := func() {
			if err := nc.PublishRequest("fn.default.echo", inbox, []byte("1234")); err != nil {
				t.Fatal(err)
			}
		}
		send()
		<-s.entered
		for range 5 {
			send()
		}
		// One is at work and two wait: three are refused.
		for range 3 {
			<-got
		}
		mu.Lock()
		for _, m := range answers {
			if m.Header.Get("Tatami-Error") != string(fault.CodeWaitingListFull) || m.Header.Get("Retry-After") != "1" {
				t.Errorf("%s: %v %s", name, m.Header, m.Data)
			}
		}
		answers = nil
		mu.Unlock()
		close(s.open)
		for range 3 {
			<-got
		}
		mu.Lock()
		for _, m := range answers {
			idOf(t, m)
		}
		mu.Unlock()
		w.stop()
	}
}
