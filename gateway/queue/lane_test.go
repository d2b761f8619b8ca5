package queue

import "testing"

// The data path is told of no more than the lane may hold: instances for the rest of a long backlog would find nothing to run.
func TestRunnableIsBoundedByWhatMayBeHeld(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ backlog, hand, holding, want int }{
		{backlog: 0, want: 0}, {backlog: 7, want: 7}, {backlog: 500, want: 10}, {backlog: 500, hand: 2, holding: 8, want: 4}, {backlog: 500, holding: 10, want: 0},
		{backlog: 500, hand: 3, holding: 12, want: 3},
	} {
		l := &lane{q: &Queue{cfg: Config{MaxHeld: 10}}, backlog: c.backlog, hand: make([]*held, c.hand), holding: c.holding}
		if got := l.runnable(); got != c.want {
			t.Errorf("backlog %d, %d of %d held in hand: %d, want %d", c.backlog, c.hand, c.holding, got, c.want)
		}
	}
}
