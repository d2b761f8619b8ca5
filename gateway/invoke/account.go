package invoke

import (
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/tatami-faas/tatami/functions"
)

// account counts what is in flight and bounds it, and holds the rate at which something may begin. The zero value has no bounds.
type account struct {
	inFlight atomic.Int64
	// limit is the quota's Concurrent; 0 is no bound.
	limit   atomic.Int64
	limiter atomic.Pointer[rate.Limiter]
	// waiting counts who waits in enterWait; freed has room for one wake-up.
	waiting atomic.Int64
	freed   chan struct{}
	mu      sync.Mutex
}

// apply takes over a quota as Over returns it.
func (a *account) apply(q functions.Quota) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit.Store(q.Concurrent)
	switch l := a.limiter.Load(); {
	case q.Rate <= 0:
		a.limiter.Store(nil)
	case l == nil:
		a.limiter.Store(rate.NewLimiter(rate.Limit(q.Rate), int(q.Rate)))
	default:
		l.SetLimit(rate.Limit(q.Rate))
		l.SetBurst(int(q.Rate))
	}
	a.wake()
}

func (a *account) enter() bool {
	for {
		v, limit := a.inFlight.Load(), a.limit.Load()
		if limit > 0 && v >= limit {
			return false
		}
		if a.inFlight.CompareAndSwap(v, v+1) {
			return true
		}
	}
}

func (a *account) leave() {
	a.inFlight.Add(-1)
	a.wake()
}

func (a *account) wake() {
	if a.waiting.Load() == 0 {
		return
	}
	select {
	case a.freed <- struct{}{}:
	default:
	}
}
