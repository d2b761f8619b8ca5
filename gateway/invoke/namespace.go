package invoke

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// namespace is a namespace's account: what runs, and how often something may begin. Without a quota it costs two atomic operations.
type namespace struct {
	name     string
	inFlight atomic.Int64
	// limit is the quota's Concurrent; 0 is no bound.
	limit   atomic.Int64
	limiter atomic.Pointer[rate.Limiter]
	// waiting counts who waits in enterWait; freed has room for one wake-up.
	waiting atomic.Int64
	freed   chan struct{}
	mu      sync.Mutex
}

func newNamespace(name string) *namespace {
	return &namespace{name: name, freed: make(chan struct{}, 1)}
}

// apply takes over a quota; the zero one has no bounds.
func (n *namespace) apply(q functions.Quota) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limit.Store(q.Concurrent)
	switch l := n.limiter.Load(); {
	case q.Rate <= 0:
		n.limiter.Store(nil)
	case l == nil:
		n.limiter.Store(rate.NewLimiter(rate.Limit(q.Rate), int(q.Rate)))
	default:
		l.SetLimit(rate.Limit(q.Rate))
		l.SetBurst(int(q.Rate))
	}
	n.wake()
}

// allow counts one beginning against the rate.
func (n *namespace) allow(now time.Time) error {
	l := n.limiter.Load()
	if l == nil || l.AllowN(now, 1) {
		return nil
	}
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	r.CancelAt(now)
	return fault.New(fault.CodeRateLimited, "namespace %s may begin %d invocations a second and did", n.name, int64(l.Limit())).
		WithHint("slow down, or ask for more: tatami quota set %s --rate N", n.name).WithRetryAfter(wait)
}

// enter counts one more invocation in flight, unless the quota forbids it; leave takes it back.
func (n *namespace) enter() bool {
	for {
		v, limit := n.inFlight.Load(), n.limit.Load()
		if limit > 0 && v >= limit {
			return false
		}
		if n.inFlight.CompareAndSwap(v, v+1) {
			return true
		}
	}
}

func (n *namespace) leave() {
	n.inFlight.Add(-1)
	n.wake()
}

func (n *namespace) wake() {
	if n.waiting.Load() == 0 {
		return
	}
	select {
	case n.freed <- struct{}{}:
	default:
	}
}

// enterWait is enter for who may wait until ctx ends.
func (n *namespace) enterWait(ctx context.Context) error {
	if n.enter() {
		return nil
	}
	n.waiting.Add(1)
	defer n.waiting.Add(-1)
	for {
		// Tried again after waiting was raised: whoever left before that did not see us.
		if n.enter() {
			// There may be room for more than us, and one wake-up only was kept.
			n.wake()
			return nil
		}
		select {
		case <-n.freed:
		case <-ctx.Done():
			return n.full()
		}
	}
}

func (n *namespace) full() error {
	return fault.New(fault.CodeQuotaExceeded, "namespace %s has %d invocations in flight, as many as its quota allows", n.name, n.limit.Load()).
		WithHint("wait for some to end, or raise the quota: tatami quota set %s --concurrent N", n.name).WithRetryAfter(time.Second)
}
