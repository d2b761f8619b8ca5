package queue

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// directPath is a data path whose leases end requests in time by themselves.
type directPath struct {
	*testDataPath
	as func(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error)
}

type directLease struct {
	Lease
	p *directPath
}

func (p *directPath) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	l, err := p.testDataPath.Lease(ctx, ref)
	if err != nil {
		return nil, err
	}
	return directLease{l, p}, nil
}

func (l directLease) RoundTripAs(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error) {
	return l.p.as(r, id, attempt)
}

func newDirectPath(t *testing.T) *directPath {
	p := &directPath{testDataPath: newDataPath(t, 1, http.HandlerFunc(echo))}
	p.deploy(hello, nil)
	return p
}

// watcher is told of a context's end.
type watcher chan struct{}

func (w watcher) Gone() { close(w) }

// Each way of those who wait for a context's end learns of it.
var waysToWait = map[string]func(context.Context){
	"by its channel": func(ctx context.Context) { <-ctx.Done() },
	"by being told": func(ctx context.Context) {
		told := make(watcher)
		ctx.(*span).Watch(ctx, told)
		<-told
	},
	"by a context of its own": func(ctx context.Context) {
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		<-own.Done()
	},
}

func TestADirectLeaseIsToldWhichAttemptItIs(t *testing.T) {
	t.Parallel()
	type call struct {
		id      functions.InvocationID
		attempt int
		header  http.Header
	}
	calls := make(chan call, 2)
	p := newDirectPath(t)
	p.as = func(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error) {
		calls <- call{id, attempt, r.Header.Clone()}
		if attempt == 1 {
			return nil, fault.New(fault.CodeFunctionTimeout, "the way of the lease to say it")
		}
		return noop(r)
	}
	w := startPath(t, p, Config{})
	id := w.accept(Request{Header: http.Header{"X-Own": {"a"}}})
	st := w.ends(id)
	for attempt := 1; attempt <= 2; attempt++ {
		c := receive(t, calls, "an attempt")
		if c.id != id || c.attempt != attempt || c.header.Get("X-Own") != "a" || len(c.header) != 1 {
			t.Errorf("%+v", c)
		}
	}
	if st.State != functions.StateSucceeded || len(st.Attempts) != 2 || !strings.Contains(st.Attempts[0].Message, "did not finish its answer within") ||
		st.Attempts[0].Error != string(fault.CodeFunctionTimeout) {
		t.Errorf("%+v", st)
	}
}

func TestADirectAttemptIsCancelled(t *testing.T) {
	t.Parallel()
	for name, wait := range waysToWait {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := make(chan struct{}, 1)
			p := newDirectPath(t)
			p.as = func(r *http.Request, _ functions.InvocationID, _ int) (*http.Response, error) {
				began <- struct{}{}
				wait(r.Context())
				return nil, fault.Wrap(fault.CodeUnavailable, r.Context().Err(), "the request was closed")
			}
			w := startPath(t, p, Config{})
			id := w.accept(Request{})
			receive(t, began, "the attempt begins")
			w.cancels(id)
			if st := w.ends(id); len(st.Attempts) != 1 || st.Attempts[0].Error != string(fault.CodeConflict) {
				t.Errorf("%+v", st)
			}
			w.empty()
		})
	}
}

// The process's end cuts direct attempts that take too long, and the next process makes them again.
func TestADirectAttemptIsCut(t *testing.T) {
	t.Parallel()
	for name, wait := range waysToWait {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, dir := make(chan struct{}, 1), t.TempDir()
			p := newDirectPath(t)
			p.as = func(r *http.Request, _ functions.InvocationID, _ int) (*http.Response, error) {
				began <- struct{}{}
				wait(r.Context())
				return nil, fault.Wrap(fault.CodeUnavailable, r.Context().Err(), "the request was closed")
			}
			w := startOn(t, bus.Config{DataDir: dir}, p, Config{Drain: time.Millisecond})
			id := w.accept(Request{})
			receive(t, began, "the attempt begins")
			w.stop()
			p.as = func(r *http.Request, _ functions.InvocationID, _ int) (*http.Response, error) { return noop(r) }
			w = startOn(t, bus.Config{DataDir: dir}, p, Config{})
			if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 1 || st.Attempts[0].Number != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A span that has ended tells whoever asks later.
func TestASpanThatHasEnded(t *testing.T) {
	t.Parallel()
	s := &span{Context: t.Context()}
	if s.Err() != nil {
		t.Error("it ended before its end")
	}
	s.Watch(s, watcher(nil))
	if s.Unwatch() {
		t.Error("told before its end")
	}
	s.end()
	s.end()
	if !s.Unwatch() {
		t.Error("not told at its end")
	}
	for _, wait := range waysToWait {
		wait(s)
	}
	if !errors.Is(context.Cause(s), context.Canceled) {
		t.Errorf("it ended with %v", context.Cause(s))
	}
}
