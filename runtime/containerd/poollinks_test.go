//go:build linux

package containerd

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// spareOf is a sandbox that nothing watches over.
func spareOf(linked bool) *spare { return &spare{conn: &net.UnixConn{}, linked: linked} }

func TestLinksGoToEgressOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := waitingPool()
		plain, other, linked, second := spareOf(false), spareOf(false), spareOf(true), spareOf(true)
		p.idle = []*spare{linked, plain, other}
		if s, why := p.take(t.Context(), false); s != plain || why != "" {
			t.Errorf("without egress: %p, %q", s, why)
		}
		if s, why := p.take(t.Context(), true); s != linked || why != "" {
			t.Errorf("with egress: %p, %q", s, why)
		}
		if s, why := p.take(t.Context(), true); s != other || why != "" {
			t.Errorf("with egress, where no link is left: %p, %q", s, why)
		}
		p.idle = []*spare{linked}
		ctx, cancel := context.WithCancel(t.Context())
		without := taking(ctx, p, false)
		if len(p.waiters) != 1 {
			t.Fatalf("%d wait: one without egress does not take what has a link", len(p.waiters))
		}
		p.idle = nil
		with := taking(t.Context(), p, true)
		p.add(second)
		if s, _ := with(); s != second {
			t.Errorf("the first with egress that waits got %p", s)
		}
		cancel()
		if s, _ := without(); s != nil {
			t.Errorf("the one without egress got %p", s)
		}
	})
}

func TestLinkedBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		of   poolBounds
		room int
		want poolBounds
	}{
		{poolBounds{0, 0}, 1000, poolBounds{0, 0}},
		{poolBounds{1, 1}, 1000, poolBounds{0, 0}},
		{poolBounds{8, 8}, 1000, poolBounds{1, 4}},
		{poolBounds{104, 471}, 32768, poolBounds{13, 235}},
		{poolBounds{104, 471}, 64, poolBounds{8, 8}},
	} {
		if got := c.of.linked(c.room); got != c.want {
			t.Errorf("%+v with room for %d: %+v, not %+v", c.of, c.room, got, c.want)
		}
	}
	p := newPool(nil, poolBounds{8, 10})
	p.links.bounds = p.bounds.linked(1000)
	sizes := func(wantPlain, wantLinked int) {
		t.Helper()
		if plain, linked := p.sizesLocked(time.Now()); plain != wantPlain || linked != wantLinked {
			t.Errorf("%d and %d, not %d and %d", plain, linked, wantPlain, wantLinked)
		}
	}
	sizes(8, 0)
	p.asked(true)
	sizes(8, 1)
	for range 8 {
		p.asked(true)
		p.asked(false)
	}
	// The burst asks for more than there may be in all.
	sizes(5, 5)
}

func TestLinksAreMadeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(nil, poolBounds{4, 4})
		p.links = links{bounds: poolBounds{2, 2}, open: true}
		for i, link := range []bool{false, false, true, true} {
			if got, ok := p.awaitTurn(t.Context()); !ok || got.link != link || got.urgent == link {
				t.Errorf("turn %d: %+v, %v", i, got, ok)
			}
		}
		*p.makingLocked(true)--
		p.links.retry = time.Now().Add(lastRetry)
		begun := time.Now()
		if got, ok := p.awaitTurn(t.Context()); !ok || !got.link || time.Since(begun) < lastRetry {
			t.Errorf("after one that got no link: %+v, %v, after %s", got, ok, time.Since(begun))
		}
	})
}

func TestTrimKeepsEachKind(t *testing.T) {
	t.Parallel()
	p := newPool(nil, poolBounds{100, 100})
	for i := range 60 {
		p.idle = append(p.idle, &spare{linked: i%3 == 0})
	}
	for _, c := range []struct {
		linked           bool
		most, gone, left int
	}{{true, 20, 0, 20}, {true, 5, 2, 18}, {false, 40, 0, 40}, {false, 0, 4, 36}, {true, 17, 1, 17}} {
		gone := p.trimLocked(c.linked, c.most)
		for _, s := range gone {
			if s.linked != c.linked {
				t.Error("one of the other kind is given up")
			}
		}
		if left := p.idleLocked(c.linked); len(gone) != c.gone || left != c.left {
			t.Errorf("%+v: %d are given up, %d left", c, len(gone), left)
		}
	}
}

// What waits already gets the links that are wanted: the pool never holds more than it may.
func TestLinksForThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(nil, poolBounds{4, 4})
		for range 4 {
			p.idle = append(p.idle, spareOf(false))
		}
		p.links = links{bounds: poolBounds{2, 2}, open: true}
		for range 2 {
			turn, ok := p.awaitTurn(t.Context())
			if !ok || !turn.link || turn.waits == nil {
				t.Fatalf("%+v, %v", turn, ok)
			}
			turn.waits.linked = true
			p.idle = append(p.idle, turn.waits)
			*p.makingLocked(true)--
		}
		// A burst of late has left more with a link than are wanted now: those without come when these are gone.
		p.idle = append(p.idle[2:], p.idle[2:]...)
		p.links.bounds = poolBounds{0, 0}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if turn, ok := p.awaitTurn(ctx); ok {
			t.Errorf("%+v where the pool is full", turn)
		}
		if p.idle = p.idle[1:]; p.idleLocked(true) != 3 {
			t.Fatalf("%d have a link", p.idleLocked(true))
		}
		if turn, ok := p.awaitTurn(t.Context()); !ok || turn.link {
			t.Errorf("%+v, %v", turn, ok)
		}
	})
}
