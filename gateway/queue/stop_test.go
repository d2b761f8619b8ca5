package queue

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// stoppablePath is a data path whose function can be told to stop.
type stoppablePath struct {
	*testDataPath
	// notices says that the function ends when it is told, deaf that it cannot be told.
	notices, deaf bool
	hungUp        chan struct{}
	told          atomic.Int32
	// ended is the reason for which the instance was stopped, with a word on the slot.
	ended chan string
}

type stoppableLease struct {
	Lease
	p *stoppablePath
}

func (p *stoppablePath) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	l, err := p.testDataPath.Lease(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &stoppableLease{l, p}, nil
}

func (l *stoppableLease) HangUp() (told, sent bool) {
	l.p.told.Add(1)
	if !l.p.deaf {
		close(l.p.hungUp)
	}
	return !l.p.deaf, true
}

func (l *stoppableLease) End(string) error {
	held := "slot held"
	if l.Lease.(*testLease).done {
		held = "slot given back"
	}
	l.p.ended <- held
	return nil
}

// Where an instance runs one invocation at a time, a cancelled one that goes on is stopped with it, before its slot is anybody else's.
func TestACancelledAttemptThatGoesOnIsStopped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		concurrency   int
		notices, deaf bool
		told, ended   int
	}{
		"it goes on":             {concurrency: 1, told: 1, ended: 1},
		"it notices":             {concurrency: 1, notices: true, told: 1},
		"it cannot be told":      {concurrency: 1, deaf: true, told: 1, ended: 1},
		"others run beside it":   {concurrency: 2},
		"others, and it is deaf": {concurrency: 2, deaf: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := make(chan struct{}, 1)
			p := &stoppablePath{testDataPath: newDataPath(t, 1, http.HandlerFunc(echo)), notices: c.notices, deaf: c.deaf, hungUp: make(chan struct{}), ended: make(chan string, 10)}
			p.deploy(hello, func(cfg *functions.Config) { cfg.Concurrency = c.concurrency })
			p.trip = func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != "/long" {
					return noop(r)
				}
				began <- struct{}{}
				noticed := p.hungUp
				if !p.notices {
					noticed = nil
				}
				select {
				case <-noticed:
					// What a function answers that was told so is no result, even where it looks like one.
					return noop(r)
				case <-r.Context().Done():
					return nil, fault.Wrap(fault.CodeUnavailable, r.Context().Err(), "the request was closed")
				}
			}
			w := startPath(t, p, Config{CancelGrace: 20 * time.Millisecond})
			id := w.accept(Request{Path: "/long"})
			receive(t, began, "the attempt begins")
			w.cancels(id)
			if st := w.ends(id); st.State != functions.StateCancelled || st.Result.Status != 0 {
				t.Errorf("%+v", st)
			}
			w.ends(w.accept(Request{Path: "/next"}))
			w.stop()
			if n := int(p.told.Load()); n != c.told {
				t.Errorf("told %d times, want %d", n, c.told)
			}
			if len(p.ended) != c.ended {
				t.Fatalf("stopped %d times, want %d", len(p.ended), c.ended)
			}
			if c.ended > 0 {
				if slot := <-p.ended; slot != "slot held" {
					t.Error("the instance is stopped with its " + slot)
				}
			}
		})
	}
}
