package worker

import (
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

func TestDifference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, now, came []string
		went              bool
	}{
		{},
		{now: []string{"a"}, came: []string{"a"}},
		{before: []string{"a"}, now: []string{"a"}},
		{before: []string{"a", "b"}, now: []string{"b", "a"}},
		{before: []string{"b"}, now: []string{"a", "b", "c"}, came: []string{"a", "c"}},
		{before: []string{"a", "b"}, now: []string{"b", "c"}, came: []string{"c"}, went: true},
		{before: []string{"a"}, went: true},
	} {
		if came, went := difference(c.before, c.now); !slices.Equal(came, c.came) || went != c.went {
			t.Errorf("from %v to %v: %v came, %t", c.before, c.now, came, went)
		}
	}
}

// The state of an idle instance that is stopped waits for its end, or for what has to be told anyway.
func TestAnEndWaitsForItsNews(t *testing.T) {
	t.Parallel()
	in := &instance{}
	b := batch{changed: map[*instance]struct{}{}, ending: map[*instance]struct{}{in: {}}}
	b.late()
	if _, told := b.changed[in]; !told || len(b.ending) != 0 {
		t.Errorf("%d are told, %d wait", len(b.changed), len(b.ending))
	}
}

func TestWhoIsAsked(t *testing.T) {
	t.Parallel()
	w := &Worker{cfg: Config{Node: "nod_a"}}
	for node, want := range map[string]bool{"": true, "nod_a": true, "nod_b": false} {
		if got := w.asked([]byte(node)); got != want {
			t.Errorf("asked %q: %v", node, got)
		}
	}
}

// Each report is a sign of life: one that says nothing else goes out only where none did for as long as a worker may be silent.
func TestAWorkerThatReportsNeedNotBeat(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for silent, want := range map[time.Duration]struct {
		beats bool
		again time.Duration
	}{
		-time.Millisecond:                  {false, bus.BeatEvery + time.Millisecond},
		0:                                  {false, bus.BeatEvery},
		bus.BeatEvery - 3*time.Millisecond: {false, 3 * time.Millisecond},
		bus.BeatEvery:                      {true, bus.BeatEvery},
		10 * bus.BeatEvery:                 {true, bus.BeatEvery},
	} {
		o := newOutbox(nil)
		o.told = now.Add(-silent)
		if again := o.beat(now); again != want.again || o.pending.alive != want.beats {
			t.Errorf("%s after a report it beats: %t, and comes again after %s", silent, o.pending.alive, again)
		}
	}
}
