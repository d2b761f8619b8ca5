package queue

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// lane dispatches the queued invocations of one function.
//
// What waits in the stream is asked for in two ways. A slot that holds a lease asks for one message and takes "none" for an answer; where
// attempts are short, it asks for those of the next milliseconds with it, since a request for each costs as much as the rest of its way.
// While nobody asks, one request without a lease stands at the server: it brings the message that nobody knew of, such as a retry whose
// time has come, and that message waits in hand for a lease. A few slots wait for a lease; as soon as one has it, the next begins to,
// while work is left: so attempts run on as many slots as there are, and none is held for nothing.
type lane struct {
	q    *Queue
	hash string
	ref  functions.Ref
	// poke wakes the loop.
	poke chan struct{}

	mu   sync.Mutex
	pull *puller
	// opened says that there was a consumer once.
	opened bool
	// hand holds messages that wait for a lease, slots the leases that wait for a message.
	hand  []*held
	slots []*slot
	// gathers are the batches that wait for more messages; batch is how many messages one has, as the last lease told, 0 where there are none.
	gathers []*gathering
	batch   int
	// backlog is how many messages wait in the stream, as far as is known; last is the stream's sequence of the last one delivered.
	backlog int
	last    uint64
	// holding counts messages in hand, running and being finished.
	holding int
	// chains are the ordering keys that have an invocation under way, waiting counts the messages that wait for their turn.
	chains  map[string]*chain
	waiting int
	// pace is the mean time between two messages that were taken, at tookAt the last one.
	pace   time.Duration
	tookAt time.Time
	// acquiring counts slots that wait for a lease.
	acquiring int
	// notBefore is when the next lease is asked for after the platform could give none; failures counts how often in a row.
	notBefore time.Time
	failures  int
	// used is when something was last to do; touched counts arrivals.
	used    time.Time
	touched uint64
	// told is the backlog that the data path knows, at toldAt.
	told   int
	toldAt time.Time
	closed bool
}

// slot is a lease that waits for a message; nil says that there is none.
type slot struct {
	got chan *held
	at  time.Time
}

// patience is how long an answer of the server may take before it counts as lost.
const patience = 5 * time.Second

// maxEager is how many slots of a lane with work under way wait for leases: enough that the next one never waits for a goroutine to
// be scheduled.
const maxEager = 8

// laneOf returns the lane of an invocation's function, and starts it where there is none.
func (q *Queue) laneOf(ref functions.Ref, hash string) *lane {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lanes[hash]; l != nil {
		return l
	}
	l := &lane{q: q, hash: hash, ref: ref, poke: make(chan struct{}, 1), used: time.Now(), chains: map[string]*chain{}}
	for order, id := range q.turns[hash] {
		l.chains[order] = &chain{turn: id}
	}
	delete(q.turns, hash)
	select {
	case <-q.lanesCtx.Done():
		// The message waits for the next process.
		l.closed = true
		return l
	default:
	}
	q.lanes[hash] = l
	q.work.Go(func() { l.loop(q.lanesCtx) })
	return l
}

// arrive tells the lane of a function that n more messages are in the stream.
func (q *Queue) arrive(ref functions.Ref, hash string, n int) {
	for {
		l := q.laneOf(ref, hash)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			select {
			case <-q.lanesCtx.Done():
				return
			default:
				continue
			}
		}
		l.backlog += n
		l.touched++
		l.used = time.Now()
		l.step()
		l.mu.Unlock()
		return
	}
}

// loop keeps the lane's consumer and ends the lane when it had nothing to do for long.
func (l *lane) loop(ctx context.Context) {
	defer l.end()
	if !l.open(ctx) {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.poke:
		case <-timer.C:
		}
		if l.lost() && !l.open(ctx) {
			return
		}
		if l.idle(ctx) {
			return
		}
		timer.Reset(l.tick(ctx))
	}
}

// open makes the consumer and subscribes; it tries until it succeeds or ctx ends.
func (l *lane) open(ctx context.Context) bool {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		p, err := l.q.newPuller(ctx, l)
		if err == nil {
			l.mu.Lock()
			p.anew, l.opened = l.opened, true
			l.pull = p
			// What the consumer knows of is asked for; messages in hand stay.
			l.backlog = max(l.backlog, p.pending)
			l.step()
			l.mu.Unlock()
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		l.q.log.Warn("the queue of a function cannot be read, trying again", "fn", l.ref.String(), "err", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// lost drops a puller whose consumer is gone and reports that there is none.
func (l *lane) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pull != nil && l.pull.gone {
		l.pull.close()
		l.pull = nil
		l.releaseSlots(0)
	}
	return l.pull == nil
}

// wake makes the loop look again.
func (l *lane) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// step does what the state calls for: asks for messages, begins to wait for a lease, tells the backlog. l.mu is held.
func (l *lane) step() {
	if l.pull == nil || l.closed {
		return
	}
	if l.waiting >= maxWaiting {
		l.releaseSlots(0)
		return
	}
	l.pull.ask(len(l.slots), len(l.hand), max(l.ahead(), l.gathered()), len(l.hand) == 0 && l.holding < l.q.cfg.MaxHeld)
	if l.pull.asked == 0 {
		l.forgoEmpty()
	}
	work := l.batches(l.backlog+len(l.hand)) - len(l.slots)
	if work > l.acquiring && l.acquiring < l.eager() && (l.holding < l.q.cfg.MaxHeld || len(l.hand) > 0) &&
		(l.notBefore.IsZero() || time.Until(l.notBefore) <= 0) {
		l.acquiring++
		l.q.goAttempt(l.acquire)
	}
	l.tell(false)
}

const (
	// usualHorizon is for how long messages are fetched ahead, maxAhead how many at most.
	usualHorizon = 5 * time.Millisecond
	maxAhead     = 64
)

// ahead is how many messages are to be in hand beside those that slots wait for. l.mu is held.
func (l *lane) ahead() int {
	if l.pace <= 0 || l.backlog == 0 || l.holding+l.pull.asked+maxAhead > l.q.cfg.MaxHeld {
		return 0
	}
	return min(int(l.q.horizon/l.pace), maxAhead)
}

// paced takes note that a message was taken. l.mu is held.
func (l *lane) paced() {
	now := time.Now()
	since := min(now.Sub(l.tookAt), time.Second)
	if l.tookAt.IsZero() {
		since = time.Second
	}
	l.tookAt = now
	l.pace += (since - l.pace) / 8
}

// eager is how many slots may wait for a lease at once. One, while nothing runs: a function that does not start fails one attempt at a
// time. l.mu is held.
func (l *lane) eager() int {
	if l.holding > len(l.hand) {
		return maxEager
	}
	return 1
}

// runnable is how many could run now: no more are taken out of the stream than may be held. l.mu is held.
func (l *lane) runnable() int {
	return min(l.backlog, max(l.q.cfg.MaxHeld-l.holding, 0)) + len(l.hand)
}

// tell hands the backlog to the data path, when it changed much or always is set. l.mu is held.
func (l *lane) tell(always bool) {
	n := l.runnable()
	same := n == l.told
	much := (n == 0) != (l.told == 0) || n > 2*l.told || 2*n < l.told
	if same && !always || !much && !always && time.Since(l.toldAt) < 200*time.Millisecond {
		return
	}
	l.told, l.toldAt = n, time.Now()
	l.q.run.SetBacklog(l.ref, n)
}

// acquire waits for a lease, takes a message and runs it.
func (l *lane) acquire() {
	q := l.q
	lease, err := q.run.Lease(q.lanesCtx, l.ref)
	l.mu.Lock()
	l.acquiring--
	if err != nil && (q.lanesCtx.Err() != nil || platformFault(err)) {
		if q.lanesCtx.Err() == nil {
			l.holdOff(err)
		}
		l.mu.Unlock()
		return
	}
	l.failures, l.notBefore = 0, time.Time{}
	if err == nil {
		l.batch = lease.Revision().Config.Queue.Batch.Size
	}
	if l.batch > 0 && err == nil {
		q.attemptBatch(l, l.gather(lease.Revision().Config.Queue.Batch), lease)
		return
	}
	h := l.take()
	if h == nil {
		if lease != nil {
			lease.Release()
		}
		return
	}
	q.attempt(l, h, lease, err)
}

// take returns a message, or nil where there is none. l.mu is held, and released.
func (l *lane) take() *held {
	l.paced()
	if len(l.hand) > 0 {
		h := l.hand[0]
		l.hand = l.hand[1:]
		l.step()
		l.mu.Unlock()
		return h
	}
	if l.pull == nil || l.closed {
		l.mu.Unlock()
		return nil
	}
	s := &slot{got: make(chan *held, 1), at: time.Now()}
	l.slots = append(l.slots, s)
	l.step()
	l.mu.Unlock()
	return <-s.got
}

// holdOff waits longer and longer while the platform gives no lease: no capacity, a quota, a worker that drains. It is nobody's failed
// attempt. l.mu is held.
func (l *lane) holdOff(err error) {
	if time.Now().Before(l.notBefore) {
		// Slots that waited together were refused together.
		return
	}
	wait := min(100*time.Millisecond<<min(l.failures, 10), 5*time.Second)
	if f := fault.From(err); f != nil && f.RetryAfter > wait {
		wait = min(f.RetryAfter, 5*time.Second)
	}
	l.failures++
	l.notBefore = time.Now().Add(wait)
	if l.failures == 1 {
		l.q.log.Info("queued invocations wait", "fn", l.ref.String(), "err", err)
	}
	l.wake()
}

// deliver gives a message to a slot that waits, or takes it in hand. l.mu is held.
func (l *lane) deliver(h *held) {
	if l.joinBatch(h) {
		return
	}
	if len(l.slots) > 0 {
		s := l.slots[0]
		l.slots = l.slots[1:]
		s.got <- h
		return
	}
	h.inHand = time.Now()
	l.hand = append(l.hand, h)
	if len(l.hand) == 1 {
		// The loop looks after those in hand once there are any.
		l.wake()
	}
}

// releaseSlots tells slots that there is no message, until no more than keep of them wait. l.mu is held.
func (l *lane) releaseSlots(keep int) {
	for len(l.slots) > keep {
		last := len(l.slots) - 1
		l.slots[last].got <- nil
		l.slots = l.slots[:last]
	}
	if keep == 0 {
		l.forgoEmpty()
	}
}

// putBack returns a message to the hand, to be run when the platform can.
func (l *lane) putBack(h *held, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.q.letGo(h)
		return
	}
	h.inHand = time.Now()
	l.hand = slices.Insert(l.hand, 0, h)
	l.holdOff(err)
}

// dropped says that a message left this process's hands.
func (l *lane) dropped() {
	l.mu.Lock()
	l.holding--
	l.used = time.Now()
	l.step()
	l.mu.Unlock()
}

// tick ends what expired in hand, and returns when to look again.
func (l *lane) tick(ctx context.Context) time.Duration {
	next := min(time.Second, l.q.cfg.IdleAfter)
	now := time.Now()
	l.mu.Lock()
	if len(l.slots) > 0 && now.Sub(l.slots[0].at) > patience && l.pull != nil {
		l.pull.asked = 0
		l.releaseSlots(0)
	}
	// Without leases nobody looks at the messages in hand.
	var expired []*held
	l.hand = slices.DeleteFunc(l.hand, func(h *held) bool {
		if now.Sub(h.inHand) < time.Second {
			return false
		}
		late := h.deadline()
		if late.After(now) {
			next = min(next, late.Sub(now))
			return false
		}
		expired = append(expired, h)
		return true
	})
	if wait := l.notBefore.Sub(now); wait > 0 {
		next = min(next, wait)
	}
	l.step()
	l.tell(l.told != l.runnable() || l.told > 0)
	quiet := len(l.hand) == 0 && l.backlog == 0 && l.holding == 0
	l.mu.Unlock()
	for _, h := range expired {
		l.q.goAttempt(func() { l.q.attempt(l, h, nil, errExpired) })
	}
	if ctx.Err() == nil && quiet {
		// Nothing is at hand that a clock would change but the end of the lane.
		return max(l.q.cfg.IdleAfter, time.Millisecond)
	}
	return max(next, time.Millisecond)
}

// idle ends the lane when it had nothing to do for long and the stream holds nothing for it.
func (l *lane) idle(ctx context.Context) bool {
	l.mu.Lock()
	unused := l.holding == 0 && l.backlog == 0 && l.acquiring == 0 && time.Since(l.used) >= l.q.cfg.IdleAfter
	touched := l.touched
	l.mu.Unlock()
	if !unused {
		return false
	}
	if n, err := l.q.stored(ctx, l.hash); err != nil || n > 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.touched != touched || l.holding > 0 || l.acquiring > 0 {
		return false
	}
	l.closed = true
	l.q.mu.Lock()
	delete(l.q.lanes, l.hash)
	l.q.mu.Unlock()
	return true
}

// end gives back what is in hand.
func (l *lane) end() {
	l.mu.Lock()
	l.closed = true
	if l.pull != nil {
		l.pull.close()
	}
	l.releaseSlots(0)
	hand := l.hand
	l.hand = nil
	behind := l.leaveChains()
	l.holding += len(behind)
	l.told = 0
	l.mu.Unlock()
	for _, h := range append(hand, behind...) {
		l.q.letGo(h)
	}
	l.q.run.SetBacklog(l.ref, 0)
}
