//go:build linux

package containerd

import (
	"testing"
	"time"
)

func TestYield(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	var y yield
	expect := func(want, wanting, low bool) {
		t.Helper()
		if got := y.ended(now, wanting, low); got != want {
			t.Errorf("after %v: %v", now.Sub(time.Unix(1e9, 0)), got)
		}
	}
	// It is filled for the first time; a burst that comes meanwhile goes first.
	expect(false, true, false)
	now = now.Add(3 * yieldTime)
	y.started(now)
	expect(false, true, false)
	now = now.Add(yieldTime / 2)
	y.started(now)
	expect(false, true, false)
	// The starts go on.
	now = now.Add(yieldTime / 2)
	y.started(now)
	expect(true, true, false)
	// It is full, and the starts still go on.
	now = now.Add(yieldTime)
	expect(true, false, false)
	y.started(now)
	now = now.Add(yieldTime / 4)
	expect(true, true, false)
	// They have ceased.
	now = now.Add(yieldTime)
	expect(false, false, false)
	// Single starts, each made up for at once.
	for range 5 {
		now = now.Add(yieldTime / 2)
		y.started(now)
		expect(false, true, false)
		now = now.Add(yieldTime / 4)
		expect(false, false, false)
	}
	// Few are left.
	y.started(now)
	expect(true, true, true)
}
