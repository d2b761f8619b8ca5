package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Depth is how much of a function's work is queued.
type Depth struct {
	// Pending wait for a slot, Scheduled for their time, Running have an attempt under way.
	Pending, Scheduled, Running int
	// Dead counts the dead letters that are kept.
	Dead int
	// Oldest is when the one that waits longest for a slot was accepted; zero where none waits.
	Oldest time.Time
}

// depthTimeout bounds what Depths reads from the store.
const depthTimeout = 2 * time.Second

// Depth returns the depth of one function's queue.
func (q *Queue) Depth(ref functions.Ref) Depth {
	d := q.Depths()[ref]
	return d
}

// Depths returns the depth of every function that has any. Counts are this process's own; what it cannot read in time is left zero.
func (q *Queue) Depths() map[functions.Ref]Depth {
	ctx, cancel := context.WithTimeout(context.Background(), depthTimeout)
	defer cancel()
	out := map[functions.Ref]Depth{}
	select {
	case <-q.ready:
	default:
		return out
	}
	q.mu.Lock()
	tallies := make([]*tally, 0, len(q.tables))
	for _, t := range q.tables {
		tallies = append(tallies, t)
	}
	q.mu.Unlock()
	for _, t := range tallies {
		open, running, scheduled := t.read()
		if open == 0 {
			continue
		}
		d := Depth{Pending: max(open-running-scheduled, 0), Running: running, Scheduled: scheduled}
		if d.Pending > 0 {
			d.Oldest = q.oldest(ctx, t.ref)
		}
		out[t.ref] = d
	}
	for ref, n := range q.deadByFunction(ctx) {
		d := out[ref]
		d.Dead = n
		out[ref] = d
	}
	return out
}

// oldest finds when the first waiting invocation was accepted: it is in hand, or it follows what was delivered last.
func (q *Queue) oldest(ctx context.Context, ref functions.Ref) time.Time {
	q.mu.Lock()
	l := q.lanes[ref.Hash()]
	q.mu.Unlock()
	seq := uint64(1)
	if l != nil {
		l.mu.Lock()
		var first *held
		if len(l.hand) > 0 {
			first = l.hand[0]
		}
		seq = l.last + 1
		l.mu.Unlock()
		if first != nil {
			if st, ok := q.inHand(first.id); ok {
				return st.Accepted
			}
		}
	}
	m, err := q.bus.Invocations().GetMsg(ctx, seq, jetstream.WithGetMsgSubject(bus.FunctionInvocations(ref)))
	if err != nil {
		return time.Time{}
	}
	st, err := fromMessage(m)
	if err != nil {
		return time.Time{}
	}
	return st.Accepted
}

// deadCounts caches the dead letters by function: it is read anew when the stream changed.
type deadCounts struct {
	mu         sync.Mutex
	last, msgs uint64
	read       time.Time
	refs       map[string]functions.Ref
	counts     map[functions.Ref]int
}

// deadAge is how long a count of the dead letters stands although more came.
const deadAge = time.Second

func (q *Queue) deadByFunction(ctx context.Context) map[functions.Ref]int {
	c := &q.dead
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := q.bus.Dead().Info(ctx)
	if err != nil || info.State.LastSeq == c.last && info.State.Msgs == c.msgs || time.Since(c.read) < deadAge {
		return c.counts
	}
	byHash := map[string]int{}
	if err := q.subjects(ctx, bus.StreamDead, ">", func(subject string, n uint64) {
		_, hash, _ := split(subject)
		byHash[hash] += int(n)
	}); err != nil {
		return c.counts
	}
	if c.refs == nil {
		c.refs = map[string]functions.Ref{}
	}
	counts := map[functions.Ref]int{}
	for hash, n := range byHash {
		ref, ok := c.refs[hash]
		if !ok {
			m, err := q.bus.Dead().GetLastMsgForSubject(ctx, "dead."+hash+".*")
			if err != nil {
				continue
			}
			letter, err := bus.Decode[functions.DeadLetter](m.Data)
			if err != nil {
				continue
			}
			ref = letter.Invocation.Ref()
			c.refs[hash] = ref
		}
		counts[ref] += n
	}
	c.last, c.msgs, c.read, c.counts = info.State.LastSeq, info.State.Msgs, time.Now(), counts
	return counts
}

// List returns invocations, the oldest first, at most limit: of one function, or of all where ref is empty; in one state, or in any that
// is not terminal where state is empty.
func (q *Queue) List(ctx context.Context, ref functions.Ref, state functions.InvocationState, limit int) ([]Status, error) {
	if err := q.waitReady(ctx); err != nil {
		return nil, err
	}
	switch {
	case state.Terminal():
		return q.listEnded(ctx, ref, state, limit)
	case state == functions.StateRunning:
		return q.listRunning(ref, limit), nil
	}
	hash := "*"
	if ref != (functions.Ref{}) {
		hash = ref.Hash()
	}
	out := []Status{}
	classes := []string{"inv.", "sched."}
	switch state {
	case functions.StateRetryWait, functions.StateScheduled:
		classes = classes[1:]
	case functions.StateAccepted:
		classes = classes[:1]
	}
	for _, class := range classes {
		for seq := uint64(1); len(out) < limit; {
			m, err := q.bus.Invocations().GetMsg(ctx, seq, jetstream.WithGetMsgSubject(class+hash+".*"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return nil, q.bus.Fault(err, "listing the queue")
			}
			seq = m.Sequence + 1
			st, err := fromMessage(m)
			if err != nil {
				return nil, err
			}
			if h, ok := q.inHand(st.ID); ok {
				st = h
			}
			if (state == "" || st.State == state) && (ref == (functions.Ref{}) || st.Ref == ref) {
				out = append(out, st)
			}
		}
	}
	return out, nil
}

// listRunning looks at this process's hands only: what runs may lie behind any number of messages that wait.
func (q *Queue) listRunning(ref functions.Ref, limit int) []Status {
	q.mu.Lock()
	ids := make([]functions.InvocationID, 0, len(q.held))
	for id, h := range q.held {
		if !h.since.IsZero() {
			ids = append(ids, id)
		}
	}
	q.mu.Unlock()
	out := []Status{}
	for _, id := range ids {
		if st, ok := q.inHand(id); ok && st.State == functions.StateRunning && (ref == (functions.Ref{}) || st.Ref == ref) {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Accepted.Compare(b.Accepted) })
	return out[:min(len(out), max(limit, 0))]
}

func (q *Queue) listEnded(ctx context.Context, ref functions.Ref, state functions.InvocationState, limit int) ([]Status, error) {
	return q.endedWhere(ctx, ref, limit, func(st *Status) bool { return st.State == state })
}

// endedWhere reads the results; their keys say the function and nothing else does before they are read.
func (q *Queue) endedWhere(ctx context.Context, ref functions.Ref, limit int, wanted func(*Status) bool) ([]Status, error) {
	prefix := ""
	if ref != (functions.Ref{}) {
		prefix = "inv_" + ref.Hash()
	}
	keys, err := q.bus.Results().Keys(ctx, "")
	if err != nil {
		return nil, err
	}
	out := []Status{}
	// From the newest on, so that a limit leaves the newest.
	for _, key := range slices.Backward(keys) {
		if len(out) == limit {
			break
		}
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		rec, _, err := q.bus.Results().Get(ctx, key)
		if fault.Is(err, fault.CodeInvocationNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st := ended(rec); wanted(&st) && (ref == (functions.Ref{}) || st.Ref == ref) {
			out = append(out, st)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// Dead returns dead letters, the newest first, at most limit: of one function and its deliveries, of one queue of deliveries, or of all where ref
// is empty.
func (q *Queue) Dead(ctx context.Context, ref functions.Ref, limit int) ([]functions.DeadLetter, error) {
	matches := []string{"dead.>"}
	if ref != (functions.Ref{}) {
		matches = deadAt(ref)
	}
	out := []functions.DeadLetter{}
	for _, match := range matches {
		n := 0
		err := q.newest(ctx, q.bus.Dead(), match, func(m *jetstream.RawStreamMsg) (bool, error) {
			if n >= limit {
				return false, nil
			}
			letter, err := bus.Decode[functions.DeadLetter](m.Data)
			if err != nil {
				return false, err
			}
			of, _, _ := letter.Invocation.Ref().Delivers()
			if ref == (functions.Ref{}) || letter.Invocation.Ref() == ref || of == ref {
				out = append(out, letter)
				n++
			}
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(out, func(a, b functions.DeadLetter) int { return b.Died.Compare(a.Died) })
	return out[:min(len(out), max(limit, 0))], nil
}

// ShowDead returns the dead letter of an invocation.
func (q *Queue) ShowDead(ctx context.Context, id functions.InvocationID) (functions.DeadLetter, error) {
	subject, ok := bus.DeadSubject(id)
	if !ok {
		return functions.DeadLetter{}, notFound(id)
	}
	letter, err := q.deadLetter(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return letter, fault.New(fault.CodeInvocationNotFound, "there is no dead letter of %s", id).
			WithHint("tatami queue dead FUNCTION")
	}
	return letter, err
}

func (q *Queue) deadLetter(ctx context.Context, subject string) (functions.DeadLetter, error) {
	m, err := q.bus.Dead().GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return functions.DeadLetter{}, err
	}
	if err != nil {
		return functions.DeadLetter{}, q.bus.Fault(err, "reading the dead letter")
	}
	return bus.Decode[functions.DeadLetter](m.Data)
}
