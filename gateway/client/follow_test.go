package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// logServer keeps lines as a server does and breaks every stream off after some of them.
type logServer struct {
	mu      sync.Mutex
	lines   []v1.LogLine
	perTry  int
	down    int
	refuse  error
	queries []string
}

func (s *logServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, r.URL.RawQuery)
	if s.refuse != nil && len(s.queries) > 1 {
		problem.Write(w, r, s.refuse)
		return
	}
	if s.down > 0 && len(s.queries) > 1 {
		s.down--
		panic(http.ErrAbortHandler)
	}
	var since time.Time
	if v := r.URL.Query().Get("since"); v != "" {
		since, _ = time.Parse(time.RFC3339Nano, v)
	}
	sent := 0
	for _, l := range s.lines {
		if l.Time.Before(since) {
			continue
		}
		b, _ := json.Marshal(l)
		fmt.Fprintf(w, "%s\n", b)
		if sent++; sent == s.perTry {
			break
		}
	}
	// A server that got further each time: what came is kept, and more can come the next time.
	s.perTry += 3
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// logLines are lines of two instances: pairs of the same time, some the same to the letter, and times that are off the order a little.
func logLines(n int, step time.Duration) []v1.LogLine {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	lines := make([]v1.LogLine, 0, n)
	for i := range n {
		l := v1.LogLine{Time: at.Add(time.Duration(i/2) * step), Instance: "ins_a", Stream: "stdout", Text: fmt.Sprint("line ", i/3)}
		if i%5 == 4 {
			l.Instance, l.Time = "ins_b", l.Time.Add(-min(step, time.Second))
		}
		lines = append(lines, l)
	}
	return lines
}

func TestFollowingGoesOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n      int
		step   time.Duration
		perTry int
		down   int
	}{
		"dense": {n: 40, step: time.Millisecond, perTry: 1},
		"apart": {n: 40, step: 3 * time.Second, perTry: 4},
		"away":  {n: 10, step: time.Millisecond, perTry: 5, down: 4},
		// More lines than are remembered, within the time in which they may come again.
		"flood": {n: 6000, step: 100 * time.Nanosecond, perTry: 5000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &logServer{lines: logLines(c.n, c.step), perTry: c.perTry, down: c.down}
			var got []v1.LogLine
			lost, back := 0, 0
			enough := errors.New("enough")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := server(t, s.ServeHTTP).FollowLogs(ctx, functions.Ref{Namespace: "default", Name: "hello"}, client.LogQuery{}, func(l v1.LogLine) error {
				if got = append(got, l); len(got) == len(s.lines) {
					return enough
				}
				return nil
			}, func(err error) {
				if err == nil {
					back++
				} else if lost++; fault.KindOf(err) != fault.Unavailable {
					t.Errorf("lost with %v", err)
				}
			})
			if !errors.Is(err, enough) {
				t.Fatal(err)
			}
			if !slices.Equal(got, s.lines) {
				t.Errorf("%d lines of %d, or in another order: %v", len(got), len(s.lines), got[:min(len(got), 20)])
			}
			if lost == 0 || lost != back {
				t.Errorf("lost %d times, back %d times", lost, back)
			}
		})
	}
}

// What was left out by the question stays out when the stream goes on, and what a further try cannot change ends it.
func TestFollowingEnds(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	s := &logServer{lines: logLines(4, time.Millisecond), perTry: 2, refuse: fault.New(fault.CodeFunctionNotFound, "gone")}
	since := s.lines[0].Time.Add(-time.Second)
	err := server(t, s.ServeHTTP).FollowLogs(t.Context(), ref, client.LogQuery{Since: since}, func(v1.LogLine) error { return nil }, func(error) {})
	if fault.CodeOf(err) != fault.CodeFunctionNotFound {
		t.Errorf("a function that was deleted: %v", err)
	}
	if want := "follow=true&since=" + since.Format("2006-01-02T15") + "%3A59%3A59Z"; len(s.queries) != 2 || s.queries[1] != want {
		t.Errorf("asked for %q, want %q", s.queries, want)
	}

	gone := server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	err = gone.FollowLogs(t.Context(), ref, client.LogQuery{}, nil, func(error) { t.Error("told of a stream that there never was") })
	if fault.CodeOf(err) != fault.CodeUnavailable {
		t.Errorf("no server at the beginning: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	s = &logServer{perTry: 1}
	err = server(t, s.ServeHTTP).FollowLogs(ctx, ref, client.LogQuery{}, nil, func(error) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended by its reader: %v", err)
	}
}
