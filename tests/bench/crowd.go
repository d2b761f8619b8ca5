package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
)

// crowd is several functions in this process that sleep, each with slots of its own, in the data path's place.
type crowd map[functions.Ref]*sleeper

// sleeper is a function that sleeps and answers.
type sleeper struct {
	ref    functions.Ref
	rev    *functions.Revision
	sleep  time.Duration
	status int
	slots  chan struct{}
	door   door
	// begun, where set, is called when an attempt begins, and done when it has slept.
	begun, done func(*http.Request)
}

func newSleeper(name string, sleep time.Duration, status int) *sleeper {
	ref := functions.Ref{Namespace: functions.DefaultNamespace, Name: name}
	cfg := functions.Config{Concurrency: acceptCallers, Queue: functions.Queue{MaxPending: 10_000_000}}.WithDefaults()
	return &sleeper{
		ref: ref, sleep: sleep, status: status, slots: make(chan struct{}, acceptCallers), door: door{open: make(chan struct{})},
		rev: &functions.Revision{Schema: functions.Schema, ID: "rev_sleeper", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady, Config: cfg},
	}
}

func newCrowd(all ...*sleeper) crowd {
	c := crowd{}
	for _, s := range all {
		c[s.ref] = s
	}
	return c
}

// door lets attempts begin while it is open.
type door struct {
	mu   sync.Mutex
	open chan struct{}
	is   bool
}

func (d *door) set(open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case open == d.is:
	case open:
		close(d.open)
	default:
		d.open = make(chan struct{})
	}
	d.is = open
}

func (d *door) pass(ctx context.Context) error {
	d.mu.Lock()
	open := d.open
	d.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c crowd) Lookup(_ context.Context, ref functions.Ref) (*functions.Revision, error) {
	if s := c[ref]; s != nil {
		return s.rev, nil
	}
	return nil, fmt.Errorf("there is no function %s", ref)
}

func (c crowd) SetBacklog(functions.Ref, int) {}

func (c crowd) Lease(ctx context.Context, ref functions.Ref) (queue.Lease, error) {
	s := c[ref]
	if err := s.door.pass(ctx); err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
		return sleeperLease{s}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type sleeperLease struct{ s *sleeper }

func (l sleeperLease) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.s.begun != nil {
		l.s.begun(r)
	}
	time.Sleep(l.s.sleep)
	if l.s.done != nil {
		l.s.done(r)
	}
	return &http.Response{StatusCode: l.s.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok")), ContentLength: 2, Request: r}, nil
}

func (l sleeperLease) Release()                       { <-l.s.slots }
func (l sleeperLease) Revision() *functions.Revision  { return l.s.rev }
func (l sleeperLease) Instance() functions.InstanceID { return "ins_sleeper" }
func (l sleeperLease) Cold() bool                     { return false }

// headerDue carries a time in nanoseconds.
const headerDue = "X-Due"

func dueHeader(at time.Time) http.Header {
	return http.Header{headerDue: {strconv.FormatInt(at.UnixNano(), 10)}}
}

// since is how long ago the time was that a request carries.
func since(r *http.Request) time.Duration {
	n, err := strconv.ParseInt(r.Header.Get(headerDue), 10, 64)
	if err != nil {
		return 0
	}
	return time.Since(time.Unix(0, n))
}

// samples collects times in milliseconds from many.
type samples struct {
	mu  sync.Mutex
	all []float64
}

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	s.all = append(s.all, ms(d))
	s.mu.Unlock()
}

// take waits until there are so many, returns them and begins anew.
func (s *samples) take(ctx context.Context, n int) ([]float64, error) {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		s.mu.Lock()
		if len(s.all) >= n {
			out := s.all
			s.all = nil
			s.mu.Unlock()
			return out, nil
		}
		got := len(s.all)
		s.mu.Unlock()
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d came within two minutes", got, n)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
