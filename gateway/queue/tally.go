package queue

import (
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// savedFor is for how many seconds unused retries are saved.
const savedFor = 10

// tally counts the invocations of one function that have not ended.
type tally struct {
	ref functions.Ref

	mu sync.Mutex
	// open are those accepted and not ended, whatever they do; running those with an attempt under way.
	open, running int
	// scheduled are those that wait for their next attempt's time.
	scheduled map[functions.InvocationID]struct{}
	budget    budget
	drain     drain
}

func (q *Queue) tallyOf(ref functions.Ref) *tally {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tables[ref]
	if t == nil {
		t = &tally{ref: ref, scheduled: map[functions.InvocationID]struct{}{}}
		t.budget = budget{share: q.cfg.RetryShare, floor: q.cfg.RetryFloor, most: max(savedFor*q.cfg.RetryFloor, 100), saved: savedFor * q.cfg.RetryFloor}
		q.tables[ref] = t
	}
	return t
}

// take counts one more unless that were more than limit may wait: queue-full then.
func (t *tally) take(limit int) error {
	t.mu.Lock()
	waiting := t.open - t.running
	if waiting < limit {
		t.open++
		t.mu.Unlock()
		return nil
	}
	wait := t.drain.wait(time.Now(), max(limit/20, 1))
	t.mu.Unlock()
	return fault.New(fault.CodeQueueFull, "the queue of %s is full: %d wait, at most %d may", t.ref, waiting, limit).
		WithHint("try again later, or raise queue.maxPending in tatami.yaml").WithRetryAfter(wait)
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
	t.drain.end(time.Now())
	delete(t.scheduled, id)
	t.mu.Unlock()
}

// begin notes a first attempt, retry says how long one that follows has to wait at least.
func (t *tally) begin() { t.mu.Lock(); t.budget.first(time.Now()); t.mu.Unlock() }

func (t *tally) retry() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.budget.take(time.Now())
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
