//go:build linux

package containerd

import (
	"testing"
	"time"
)

// TestPauses: what is not known is tried often at first; what is known to take its time is left alone for most of that.
func TestPauses(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	tries := func(expected, until time.Duration) (n int, late time.Duration) {
		p := &pacer{step: stepTime, expected: expected}
		at := time.Duration(0)
		for ; at < until; n++ {
			pause := p.after(at)
			if pause < stepTime || pause > slowPause {
				t.Fatalf("expected %s: pause %s after %s", expected, pause, at)
			}
			at += pause
		}
		return n, at - until
	}
	for _, c := range []struct {
		expected, takes time.Duration
		most            int
		late            time.Duration
	}{
		{0, 3 * ms, 12, stepTime},
		{0, 40 * ms, 110, 40 * ms / felt},
		{3 * ms, 3 * ms, 12, stepTime},
		{40 * ms, 40 * ms, 25, 40 * ms / felt},
		{40 * ms, 44 * ms, 35, 44 * ms / felt},
		{40 * ms, 8 * ms, 3, 40 * ms / earlyTries},
		{2000 * ms, 100 * ms, 3, slowPause},
		{0, 30_000 * ms, 1100, slowPause},
	} {
		if n, late := tries(c.expected, c.takes); n > c.most || late > c.late {
			t.Errorf("expected %s, takes %s: %d tries, %s late; want at most %d and %s", c.expected, c.takes, n, late, c.most, c.late)
		}
	}
}

func TestListenTime(t *testing.T) {
	t.Parallel()
	var none *listenTime
	none.took(time.Second)
	if got := none.expected(); got != 0 {
		t.Errorf("nothing is known, and expected is %s", got)
	}
	var l listenTime
	for _, c := range []struct{ took, want time.Duration }{{80, 80}, {40, 40}, {120, 50}, {50, 50}, {58, 51}} {
		if l.took(c.took); l.expected() != c.want {
			t.Errorf("after %d: %d, want %d", c.took, l.expected(), c.want)
		}
	}
}

// TestToldIsNotAsked: where the kernel tells, nobody asks until it has.
func TestToldIsNotAsked(t *testing.T) {
	t.Parallel()
	p, err := newPacer(stepTime, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	began := make(chan struct{}, 1)
	// Where this test itself is held up, the pause may be over as well.
	for range 100 {
		began <- struct{}{}
		told, err := p.wait(t.Context(), nil, began)
		if err != nil {
			t.Fatal(err)
		}
		if told {
			return
		}
		<-began
	}
	t.Error("the word is not heard")
}
