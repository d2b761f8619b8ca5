package queue

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// turns notes attempts by their ordering key.
type turns struct {
	mu      sync.Mutex
	begun   map[string][]string
	running map[string]int
	overlap bool
}

func (s *turns) begin(key, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun == nil {
		s.begun, s.running = map[string][]string{}, map[string]int{}
	}
	s.begun[key] = append(s.begun[key], what)
	s.running[key]++
	s.overlap = s.overlap || s.running[key] > 1
}

func (s *turns) end(key string) {
	s.mu.Lock()
	s.running[key]--
	s.mu.Unlock()
}

func (s *turns) of(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.begun[key])
}

// hear is a function whose path is /KEY/NUMBER; it fails the first attempt where the query says so.
func (s *turns) hear(w http.ResponseWriter, r *http.Request) {
	key, number, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.begin(key, number)
	defer s.end(key)
	if r.URL.RawQuery == "fail" && r.Header.Get(headerAttempt) == "1" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func numbers(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestAKeyKeepsItsOrder(t *testing.T) {
	t.Parallel()
	var s turns
	run := newDataPath(t, 8, http.HandlerFunc(s.hear))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{MaxHeld: 20})
	const keys, each = 5, 40
	large := make([]byte, 2*keptWaiting)
	var last []functions.InvocationID
	for i := range each {
		for k := range keys {
			r := Request{Path: fmt.Sprintf("/%d/%d", k, i), OrderingKey: fmt.Sprint(k)}
			if i%10 == 3 {
				r.Query = "fail"
			}
			if i%4 == 1 {
				r.Body = large
			}
			last = append(last, w.accept(r))
		}
	}
	for _, id := range last {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	for k := range keys {
		if got := slices.Compact(s.of(fmt.Sprint(k))); !slices.Equal(got, numbers(each)) {
			t.Errorf("key %d began in the order %v", k, got)
		}
	}
	if s.overlap {
		t.Error("two of one key ran at once")
	}
	w.empty()
	w.until("no key is remembered", func() bool {
		l := w.q.laneOf(hello, hello.Hash())
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.chains) == 0 && l.waiting == 0 && l.holding == 0
	})
	if d := w.q.Depth(hello); d != (Depth{}) {
		t.Errorf("depth %+v", d)
	}
}

func TestOneThatWaitsForAnAttemptKeepsItsKeyOnly(t *testing.T) {
	t.Parallel()
	var s turns
	run := newDataPath(t, 1, http.HandlerFunc(s.hear))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{BackoffBase: time.Hour, BackoffMax: time.Hour})
	waits := w.accept(Request{Path: "/a/0", Query: "fail", OrderingKey: "a"})
	w.until("it waits for its second attempt", func() bool {
		st, err := w.q.Lookup(t.Context(), waits, 0)
		return err == nil && st.State == functions.StateRetryWait
	})
	behind := w.accept(Request{Path: "/a/1", OrderingKey: "a"})
	gone := w.accept(Request{Path: "/a/2", OrderingKey: "a"})
	last := w.accept(Request{Path: "/a/3", OrderingKey: "a"})
	for _, r := range []Request{{Path: "/b/0", OrderingKey: "b"}, {Path: "/c/0"}} {
		w.ends(w.accept(r))
	}
	if st, err := w.q.Cancel(t.Context(), gone); err != nil || st.State != functions.StateCancelled {
		t.Errorf("%+v %v", st, err)
	}
	w.stop()
	// The turn outlives the process.
	w = start(t, dir, run, Config{BackoffBase: time.Hour, BackoffMax: time.Hour})
	w.ends(w.accept(Request{Path: "/b/1", OrderingKey: "b"}))
	if got := s.of("a"); !slices.Equal(got, []string{"0"}) {
		t.Fatalf("what was behind overtook: %v", got)
	}
	if st, err := w.q.Lookup(t.Context(), behind, 0); err != nil || st.State != functions.StateAccepted {
		t.Errorf("%+v %v", st, err)
	}
	if st, err := w.q.Cancel(t.Context(), waits); err != nil || st.State != functions.StateCancelled {
		t.Errorf("%+v %v", st, err)
	}
	w.ends(behind)
	w.ends(last)
	if got := s.of("a"); !slices.Equal(got, []string{"0", "1", "3"}) {
		t.Errorf("began in the order %v", got)
	}
	w.empty()
}

func TestAnOrderingKeyIsChecked(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	for _, key := range []string{"a\nb", strings.Repeat("x", functions.MaxKey+1)} {
		_, err := w.q.Accept(t.Context(), Request{Ref: hello, OrderingKey: key})
		wantCode(t, err, fault.CodeInvalidRequest)
		if fault.From(err).Field != "Tatami-Ordering-Key" {
			t.Errorf("the field is %q", fault.From(err).Field)
		}
	}
}
