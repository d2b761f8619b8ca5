package queue

import (
	"sync"

	"github.com/tatami-faas/tatami/functions"
)

// tally counts the invocations of one function that have not ended.
type tally struct {
	ref functions.Ref

	mu sync.Mutex
	// open are those accepted and not ended, whatever they do; running those with an attempt under way.
	open, running int
	// scheduled are those that wait for their next attempt's time.
	scheduled map[functions.InvocationID]struct{}
}

func (q *Queue) tallyOf(ref functions.Ref) *tally {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tables[ref]
	if t == nil {
		t = &tally{ref: ref, scheduled: map[functions.InvocationID]struct{}{}}
		q.tables[ref] = t
	}
	return t
}

// take counts one more unless that were more than limit may wait.
func (t *tally) take(limit int) (waiting int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting = t.open - t.running
	if waiting >= limit {
		return waiting, false
	}
	t.open++
	return waiting, true
}

// restore takes over what an earlier process left.
func (t *tally) restore(open int, scheduled map[functions.InvocationID]struct{}) {
	t.mu.Lock()
	t.open += open
	t.scheduled = scheduled
	t.mu.Unlock()
}

func (t *tally) ended(id functions.InvocationID) {
	t.mu.Lock()
	t.open = max(t.open-1, 0)
	delete(t.scheduled, id)
	t.mu.Unlock()
}

func (t *tally) run(n int) { t.mu.Lock(); t.running += n; t.mu.Unlock() }

func (t *tally) schedule(id functions.InvocationID) {
	t.mu.Lock()
	t.scheduled[id] = struct{}{}
	t.mu.Unlock()
}

func (t *tally) due(id functions.InvocationID) { t.mu.Lock(); delete(t.scheduled, id); t.mu.Unlock() }

func (t *tally) read() (open, running, scheduled int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open, t.running, len(t.scheduled)
}
