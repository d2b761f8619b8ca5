package queue

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// mailbox is a server that takes what goes to a destination.
type mailbox struct {
	*httptest.Server
	mu  sync.Mutex
	got []letter
	// status answers a delivery, given how many came before it.
	status func(n int) int
}

type letter struct {
	header http.Header
	body   []byte
}

func newMailbox(t *testing.T, status func(n int) int) *mailbox {
	t.Helper()
	m := &mailbox{status: status}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		m.mu.Lock()
		n := len(m.got)
		m.got = append(m.got, letter{r.Header.Clone(), body})
		m.mu.Unlock()
		if code := m.status(n); code != 0 {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func always(code int) func(int) int { return func(int) int { return code } }

func (m *mailbox) letters() []letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]letter{}, m.got...)
}

func record(t *testing.T, body []byte) Record {
	t.Helper()
	var r Record
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return r
}

func to(d functions.Destination) func(*functions.Config) {
	return func(c *functions.Config) { c.Queue.OnSuccess, c.Queue.OnFailure = d, d }
}

func TestTheRecordGoesToAURLSignedAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, func(n int) int {
		if n < 2 {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("new\nold\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := newDataPath(t, 4, http.HandlerFunc(echo))
	run.deploy(hello, to(functions.Destination{URL: box.URL + "/in", Secret: functions.SecretRef{File: keys}}))
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{Body: []byte("hi")})
	w.ends(id)
	w.empty()
	got := box.letters()
	if len(got) != 3 {
		t.Fatalf("%d deliveries", len(got))
	}
	first := got[0].header.Get(headerInvocation)
	for n, l := range got {
		if h := l.header; h.Get(headerInvocation) != first || h.Get(headerOf) != string(id) || h.Get(headerEnd) != "success" || h.Get(HeaderDepth) != "1" || h.Get(headerOfFunction) != "hello" {
			t.Errorf("delivery %d: %v", n, h)
		}
		r := record(t, l.body)
		if r.ID != id || r.Function != "hello" || r.Revision != "rev_test" || r.State != functions.StateSucceeded || r.Status != 200 || r.Body != "hi" || len(r.Attempts) != 1 {
			t.Errorf("delivery %d: %s", n, l.body)
		}
		parts := strings.Split(l.header.Get(headerSignature), ",")
		at, _ := strings.CutPrefix(parts[0], "t=")
		for i, key := range []string{"new", "old"} {
			mac := hmac.New(sha256.New, []byte(key))
			mac.Write([]byte(at + "."))
			mac.Write(l.body)
			if want := "v1=" + hex.EncodeToString(mac.Sum(nil)); len(parts) != 3 || parts[i+1] != want {
				t.Errorf("delivery %d is signed %v, want %s", n, parts, want)
			}
		}
	}
	w.until("no depth is left", func() bool { return len(w.q.Depths()) == 0 })
}

func TestWhatCannotBeDeliveredIsADeadLetterOfTheDeliveries(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, always(http.StatusNotFound))
	moved := newMailbox(t, always(http.StatusFound))
	run := newDataPath(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	run.deploy(hello, func(c *functions.Config) {
		c.Queue.OnSuccess, c.Queue.OnFailure = functions.Destination{URL: box.URL}, functions.Destination{URL: moved.URL}
	})
	w := start(t, t.TempDir(), run, Config{})
	good, bad := w.accept(Request{}), w.accept(Request{Path: "/bad"})
	w.ends(good)
	w.ends(bad)
	w.empty()
	if n, m := len(box.letters()), len(moved.letters()); n != 1 || m != 1 {
		t.Errorf("a final answer is tried again: %d and %d deliveries", n, m)
	}
	all, err := w.q.Dead(t.Context(), hello, 10)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	success := hello.Deliveries(functions.EndSuccess)
	only, err := w.q.Dead(t.Context(), success, 10)
	if err != nil || len(only) != 1 {
		t.Fatalf("%+v, %v", only, err)
	}
	if l := only[0]; l.Invocation.Of != good || l.Reason != "the destination answered 404 Not Found" || record(t, l.Invocation.Body).ID != good {
		t.Errorf("%+v", l)
	}
	if st := w.ends(only[0].Invocation.ID); st.State != functions.StateDead || st.Ref != success {
		t.Errorf("%+v", st)
	}
	// The destination is mended with a deploy: what is redriven goes where the function says now.
	mended := newMailbox(t, always(0))
	run.deploy(hello, to(functions.Destination{URL: mended.URL}))
	again, err := w.q.Redrive(t.Context(), only[0].Invocation.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if st := w.ends(again); st.State != functions.StateSucceeded {
		t.Errorf("%+v", st)
	}
	if got := mended.letters(); len(got) != 1 || got[0].header.Get(headerOf) != string(good) {
		t.Errorf("%+v", got)
	}
	run.deploy(hello, nil)
	letters, err := w.q.Dead(t.Context(), hello.Deliveries(functions.EndFailure), 10)
	if err != nil || len(letters) != 1 {
		t.Fatalf("%+v, %v", letters, err)
	}
	_, err = w.q.Redrive(t.Context(), letters[0].Invocation.ID, "")
	wantCode(t, err, fault.CodeDestinationFailed)
	if n, err := w.q.PurgeDead(t.Context(), hello, 10); n != 2 || err != nil {
		t.Errorf("%d are purged, %v", n, err)
	}
}

func TestTheRecordGoesToAFunctionAndToASubject(t *testing.T) {
	t.Parallel()
	report := functions.Ref{Namespace: "default", Name: "report"}
	heard := make(chan *http.Request, 10)
	bodies := make(chan []byte, 10)
	run := newDataPath(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerOf) != "" {
			body, _ := io.ReadAll(r.Body)
			heard <- r
			bodies <- body
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, strings.Repeat("x", maxCarried+1))
	}))
	run.deploy(hello, func(c *functions.Config) { c.Queue.OnFailure = functions.Destination{Function: "report"} })
	run.deploy(report, func(c *functions.Config) { c.Queue.OnSuccess = functions.Destination{Subject: "done.reports"} })
	w := start(t, t.TempDir(), run, Config{})
	nc, err := w.bus.Connect("listener")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	published := make(chan *nats.Msg, 10)
	sub, err := nc.ChanSubscribe("dest.default.>", published)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	id := w.accept(Request{})
	if st := w.ends(id); st.State != functions.StateDead {
		t.Fatalf("%+v", st)
	}
	r := receive(t, heard, "the record comes to the function")
	second := functions.InvocationID(r.Header.Get(headerInvocation))
	if rec := record(t, receive(t, bodies, "the record")); rec.ID != id || rec.Status != 422 || rec.Body != "" || rec.BodySize != maxCarried+1 || rec.BodyLocation == "" {
		t.Errorf("%+v", rec)
	}
	if st := w.ends(second); st.State != functions.StateSucceeded || st.Ref != report || second != functions.DeliveryID(report, id) {
		t.Errorf("%+v", st)
	}
	m := receive(t, published, "the record comes to the subject")
	if m.Subject != "dest.default.done.reports" || record(t, m.Data).ID != second || m.Header.Get(headerOf) != string(second) || m.Header.Get(HeaderDepth) != "2" {
		t.Errorf("%s %v %s", m.Subject, m.Header, m.Data)
	}
	w.empty()
}

// Functions that are each other's destinations come to an end.
func TestDestinationsInACircleEnd(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, to(functions.Destination{Function: "hello"}))
	w := start(t, t.TempDir(), run, Config{})
	w.ends(w.accept(Request{}))
	w.until("the circle is cut", func() bool { return w.q.Depth(hello).Dead == 1 })
	w.empty()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.n) != functions.MaxHops+1 {
		t.Errorf("%d invocations ran", len(c.n))
	}
	_, err := w.q.Accept(t.Context(), Request{Ref: hello, Hops: functions.MaxHops + 1})
	wantCode(t, err, fault.CodeInvalidRequest)
}

// A cancelled invocation and one of a function that says nothing go nowhere.
func TestWhatGoesNowhere(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, always(0))
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, to(functions.Destination{URL: box.URL}))
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.cancels(id)
	run.deploy(hello, nil)
	run.set(func() { run.free = 1 })
	w.ends(w.accept(Request{}))
	w.empty()
	if got := box.letters(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// A process that dies behind the terminal record and before the acknowledgement has its successor hand the record on, once.
func TestARecordIsHandedOnAfterACrash(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, always(0))
	dir := t.TempDir()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, to(functions.Destination{URL: box.URL}))
	w := start(t, dir, run, Config{})
	id := w.accept(Request{})
	rec := functions.Result{
		Schema: functions.Schema, ID: id, Namespace: "default", Function: "hello", State: functions.StateSucceeded, Status: 200, Attempts: []functions.Attempt{},
		Accepted: time.Now().UTC(), Finished: time.Now().UTC(),
	}
	if _, err := w.bus.Results().Create(t.Context(), string(id), rec); err != nil {
		t.Fatal(err)
	}
	w.stop()
	run.set(func() { run.free = 2 })
	w = start(t, dir, run, Config{})
	w.empty()
	if got := box.letters(); len(got) != 1 || record(t, got[0].body).ID != id {
		t.Fatalf("%+v", got)
	}
	// The message comes once more, as if the acknowledgement had been lost: what was delivered is not delivered again.
	inv := functions.Invocation{Schema: functions.Schema, ID: id, Namespace: "default", Function: "hello", Method: "POST", Path: "/", Attempt: 1, Deadline: time.Now().Add(time.Hour)}
	w.stop()
	w = start(t, dir, run, Config{})
	// The consumers are there before it: they have no reason of their own to doubt what comes.
	w.ends(w.accept(Request{Body: []byte("before")}))
	w.empty()
	if err := w.q.put(context.Background(), &inv); err != nil {
		t.Fatal(err)
	}
	w.q.arrived(&inv)
	w.ends(w.accept(Request{Body: []byte("last")}))
	w.empty()
	of := map[string]int{}
	for _, l := range box.letters() {
		of[l.header.Get(headerOf)]++
	}
	if of[string(id)] != 1 || len(of) != 3 {
		t.Errorf("deliveries: %v", of)
	}
}
