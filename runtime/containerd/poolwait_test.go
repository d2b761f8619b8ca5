//go:build linux

package containerd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// waitingPool is a pool that is open, and that nobody fills.
func waitingPool() *pool {
	p := newPool(nil, poolBounds{1, 1})
	p.opened = true
	return p
}

// taking has a start take a sandbox, and returns what it got.
func taking(ctx context.Context, p *pool, egress bool) func() (*spare, string) {
	type got struct {
		s   *spare
		why string
	}
	out := make(chan got, 1)
	go func() {
		s, why := p.take(ctx, egress)
		out <- got{s, why}
	}()
	synctest.Wait()
	return func() (*spare, string) {
		g := <-out
		return g.s, g.why
	}
}

func TestStartsWaitForSandboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := waitingPool()
		gone, cancel := context.WithCancel(t.Context())
		first, second, third := taking(t.Context(), p, false), taking(gone, p, false), taking(t.Context(), p, false)
		cancel()
		if s, _ := second(); s != nil {
			t.Error("one that gave up got a sandbox")
		}
		one, two := &spare{}, &spare{}
		p.add(one)
		p.add(two)
		if s, why := first(); s != one || why == "" {
			t.Errorf("the first got %p, %q", s, why)
		}
		if s, _ := third(); s != two {
			t.Errorf("the next got %p", s)
		}
		if len(p.idle)+len(p.waiters) > 0 {
			t.Errorf("%d are kept, %d wait", len(p.idle), len(p.waiters))
		}
	})
}

func TestStartsDoNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := waitingPool()
		begun := time.Now()
		if s, why := p.take(t.Context(), false); s != nil || why != poolEmpty || time.Since(begun) != waitTime {
			t.Errorf("%p, %q after %s", s, why, time.Since(begun))
		}
		waits := taking(t.Context(), p, false)
		p.fails("no room")
		if s, why := waits(); s != nil || why != "no room" {
			t.Errorf("%p, %q", s, why)
		}
		begun = time.Now()
		if s, why := p.take(t.Context(), false); s != nil || why != "no room" || time.Since(begun) > 0 {
			t.Errorf("where none can be made: %p, %q after %s", s, why, time.Since(begun))
		}
		p.stuck, p.opened = false, false
		if s, _ := p.take(t.Context(), false); s != nil || time.Since(begun) > 0 {
			t.Errorf("where the pool is closed: %p after %s", s, time.Since(begun))
		}
	})
}
