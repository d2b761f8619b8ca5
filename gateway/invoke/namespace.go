package invoke

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// namespace is a namespace's account: what runs, and how often something may begin. Without a quota it costs four atomic operations.
type namespace struct {
	account
	name string
	// total is the account of all namespaces together.
	total *account
}

func newNamespace(name string, total *account) *namespace {
	n := &namespace{name: name, total: total}
	n.freed = make(chan struct{}, 1)
	return n
}

// allow counts one beginning against the rates: the namespace's, and that of all. What the total refuses does not count against the namespace.
func (n *namespace) allow(now time.Time) error {
	total := n.total.limiter.Load()
	own := n.limiter.Load()
	if own == nil {
		if total == nil || total.AllowN(now, 1) {
			return nil
		}
		return n.tooOften(total, now, functions.QuotaTotal)
	}
	if total == nil {
		if own.AllowN(now, 1) {
			return nil
		}
		return n.tooOften(own, now, n.name)
	}
	r := own.ReserveN(now, 1)
	if !r.OK() || r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return n.tooOften(own, now, n.name)
	}
	if total.AllowN(now, 1) {
		return nil
	}
	r.CancelAt(now)
	return n.tooOften(total, now, functions.QuotaTotal)
}

// tooOften is the fault of a beginning that a limiter refused.
func (n *namespace) tooOften(l *rate.Limiter, now time.Time, whose string) error {
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	r.CancelAt(now)
	if whose == functions.QuotaTotal {
		return fault.New(fault.CodeRateLimited, "all namespaces together may begin %d invocations a second and did", int64(l.Limit())).
			WithHint("slow down, or raise the total: tatami quota set --total --rate N").WithRetryAfter(wait)
	}
	return fault.New(fault.CodeRateLimited, "namespace %s may begin %d invocations a second and did", whose, int64(l.Limit())).
		WithHint("slow down, or ask for more: tatami quota set %s --rate N", whose).WithRetryAfter(wait)
}

// enter counts one more invocation in flight, unless a quota forbids it; leave takes it back. It returns the account that is full, nil where
// there was room.
func (n *namespace) enter() *account {
	if !n.account.enter() {
		return &n.account
	}
	if !n.total.enter() {
		n.account.leave()
		return n.total
	}
	return nil
}

func (n *namespace) leave() {
	n.account.leave()
	n.total.leave()
}

// enterWait is enter for who may wait until ctx ends.
func (n *namespace) enterWait(ctx context.Context) error {
	if n.enter() == nil {
		return nil
	}
	n.waiting.Add(1)
	n.total.waiting.Add(1)
	defer func() {
		n.waiting.Add(-1)
		n.total.waiting.Add(-1)
		// There may be room for more than us, and one wake-up only was kept.
		n.wake()
		n.total.wake()
	}()
	for {
		// Tried again after waiting was raised: whoever left before that did not see us.
		full := n.enter()
		switch full {
		case nil:
			return nil
		case n.total:
			n.wake()
		default:
			// The room in the total is for others.
			n.total.wake()
		}
		select {
		case <-full.freed:
		case <-ctx.Done():
			return n.full(full)
		}
	}
}

func (n *namespace) full(which *account) error {
	if which == n.total {
		return fault.New(fault.CodeQuotaExceeded, "all namespaces together have %d invocations in flight, as many as their quota allows", which.limit.Load()).
			WithHint("wait for some to end, or raise the total: tatami quota set --total --concurrent N").WithRetryAfter(time.Second)
	}
	return fault.New(fault.CodeQuotaExceeded, "namespace %s has %d invocations in flight, as many as its quota allows", n.name, which.limit.Load()).
		WithHint("wait for some to end, or raise the quota: tatami quota set %s --concurrent N", n.name).WithRetryAfter(time.Second)
}
