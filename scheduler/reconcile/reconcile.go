package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// Config tunes a Reconciler. A zero field stands for its default.
type Config struct {
	// Settle is how long after the records are known workers get to say what runs, before anything is decided. Default 300ms.
	Settle time.Duration
	// PlaceTimeout is how long a candidate may wait for room before its deploy fails. Default 60s.
	PlaceTimeout time.Duration
	// TrafficDelay is how long the old revision's instances stay after the traffic moved: gateways learn of it in that time. Default 250ms.
	TrafficDelay time.Duration
	// Compact has nodes emptied whose instances fit elsewhere, while they do nothing. CompactAfter is how long no function must have lacked room before
	// that, and between two nodes. Default 1m.
	Compact      bool
	CompactAfter time.Duration
	// IdleMemory is how much memory may be idle before its price rises, in bytes. Default a quarter of what the open nodes have.
	IdleMemory int64
}

func (c Config) withDefaults() Config {
	return Config{
		Settle:       cmp.Or(c.Settle, 300*time.Millisecond),
		PlaceTimeout: cmp.Or(c.PlaceTimeout, time.Minute),
		TrafficDelay: cmp.Or(c.TrafficDelay, 250*time.Millisecond),
		Compact:      c.Compact,
		CompactAfter: cmp.Or(c.CompactAfter, time.Minute),
		IdleMemory:   c.IdleMemory,
	}
}

// The times of the judgement.
const (
	// commandRepeat is when a start that no report confirmed is commanded again, commandGivenUp when it is taken back.
	commandRepeat  = time.Second
	commandGivenUp = 15 * time.Second
	drainRepeat    = 2 * time.Second
	// writeRepeat is when a change of the records is asked for again.
	writeRepeat = 2 * time.Second
	// carryTimeout is how long a ready candidate waits for more of its instances, and an old revision for the new one's.
	carryTimeout = 5 * time.Second
	oldTimeout   = 10 * time.Second
	// askRepeat is when the same is asked for again.
	askRepeat = 500 * time.Millisecond
	// evictIdle is how long an instance must have been idle to make room for another function.
	evictIdle = 2 * time.Second
	// evictSoon is that where nothing else makes room. Reports and statements are older than that: the worker, which knows, decides.
	evictSoon = 250 * time.Millisecond

	// yieldAfter is how long a function without any instance waits before others that have several give one up for it.
	yieldAfter = 3 * time.Second
	// shortHolds is how long the room that a candidate was refused is kept for it.
	shortHolds = 5 * time.Second

	backoffFirst = 500 * time.Millisecond
	backoffLast  = 30 * time.Second
	// awaitedLast is the longest backoff after failed starts while somebody waits.
	awaitedLast = 5 * time.Second
	// crashesFree is how many instances that nobody need wait for may crash in a row; after that crashPause lies between two starts.
	crashesFree = 3
	crashPause  = time.Second
	// soon is how long an instance must live to count as well started.
	soon = 5 * time.Second
	// candidateTries is how many instances of a candidate may crash before it fails.
	candidateTries = 2
	maxLogs        = 50
)

// Kind says what an effect asks for.
type Kind uint8

// The kinds of effects.
const (
	// Send asks for Command to be sent to its node.
	Send Kind = iota
	// Promote asks for the traffic to move to Revision, if it is still the function's candidate.
	Promote
	// Fail asks for Revision to be recorded as failed and its candidacy to end, if it is still the candidate. A revision that was ready
	// once stays ready, with the reason.
	Fail
	// Withdraw asks for Revision's candidacy to end if its record says that it failed.
	Withdraw
	// MarkReady asks for Revision, which has the traffic, to be recorded as ready.
	MarkReady
	// AskReports asks for full reports of all workers.
	AskReports
	// Tell asks for Reason to be told to the operator.
	Tell
)

// Effect is something to be done in the world. Each may be repeated without harm.
type Effect struct {
	Kind     Kind
	Command  bus.Command
	Ref      functions.Ref
	Revision functions.RevisionID
	Reason   string
	Logs     []string
}

// Reconciler holds the state and decides. One goroutine at a time uses it. Each input method returns the effects, in the order in which they
// are to be done; the slice is valid until the next call.
type Reconciler struct {
	cfg   Config
	state *state.State
	newID func() functions.InstanceID

	synced   bool
	settleAt time.Time
	opened   bool
	// short holds the functions that lack instances, since when they got none.
	short map[functions.Ref]time.Time
	// asides is the room that is kept for functions, kept what was for the one that is decided for. That one may start so many instances,
	// and more says that it wanted to go beyond.
	asides  map[functions.Ref]aside
	kept    aside
	starts  int
	more    bool
	reclaim reclaim
	tidying tidying
	// pooled is what the pool wanted last.
	pooled map[functions.NodeID]Withdrawal
	// watched holds those with something under way.
	watched map[functions.Ref]struct{}
	asked   time.Time
	// market is what idle memory costs, pricedAt when that was last looked at.
	market   keepalive.Market
	pricedAt time.Time
	// recalled is what was stored of idle times before this start, by function, until Synced; learnt holds those of which more is known than stored.
	recalled map[functions.Ref]functions.IdleTimes
	learnt   map[functions.Ref]struct{}
	pass     pass
	due      due
	// nextLook is when the one that is decided for is to be looked at again; zero where no time asks for that.
	nextLook time.Time
	out      []Effect
}

// New returns a Reconciler over an empty state; newID makes the ids of instances.
func New(cfg Config, newID func() functions.InstanceID) *Reconciler {
	return &Reconciler{
		cfg: cfg.withDefaults(), state: state.New(), newID: newID, short: map[functions.Ref]time.Time{}, asides: map[functions.Ref]aside{},
		watched: map[functions.Ref]struct{}{}, due: due{at: map[functions.Ref]*dueEntry{}},
		recalled: map[functions.Ref]functions.IdleTimes{}, learnt: map[functions.Ref]struct{}{},
	}
}

// State returns what is known, for reading.
func (r *Reconciler) State() *state.State { return r.state }

// Synced says that every record that existed at the start was handed in. Nothing is decided before.
func (r *Reconciler) Synced(now time.Time) []Effect {
	r.begin()
	r.restore(now)
	r.synced, r.settleAt = true, now.Add(r.cfg.Settle)
	r.ask(now)
	return r.out
}

// Busy reports whether something is under way that a tick should look after soon.
func (r *Reconciler) Busy() bool { return len(r.watched) > 0 || len(r.short) > 0 || !r.opened }

// Next returns when Due is to be called; zero when there is nothing that happens at a time of its own.
func (r *Reconciler) Next() time.Time {
	next := r.due.next()
	if r.pass.left > 0 && (next.IsZero() || r.pass.next.Before(next)) {
		return r.pass.next
	}
	return next
}

// SetFunction hands in a function's record.
func (r *Reconciler) SetFunction(now time.Time, rec functions.Function) []Effect {
	r.begin()
	r.state.SetFunction(now, rec)
	r.decide(now, rec.Ref())
	return r.out
}

// DeleteFunction hands in that a function's record is gone.
func (r *Reconciler) DeleteFunction(now time.Time, ref functions.Ref) []Effect {
	r.begin()
	if f := r.state.Functions[ref]; f != nil {
		r.unlearn(f)
	}
	r.state.DeleteFunction(ref)
	r.decide(now, ref)
	return r.out
}

// SetRevision hands in a revision's record.
func (r *Reconciler) SetRevision(now time.Time, rec functions.Revision) []Effect {
	r.begin()
	r.state.SetRevision(rec)
	r.decide(now, rec.Ref())
	return r.out
}

// DeleteRevision hands in that a revision's record is gone.
func (r *Reconciler) DeleteRevision(now time.Time, ref functions.Ref, id functions.RevisionID) []Effect {
	r.begin()
	r.state.DeleteRevision(ref, id)
	r.decide(now, ref)
	return r.out
}

// SetQuota hands in a namespace's quota, the defaults or the total. One that is lower than what runs stops nothing: it refuses what is to be started.
func (r *Reconciler) SetQuota(now time.Time, q functions.Quota) []Effect {
	r.begin()
	r.state.SetQuota(q)
	r.decideShort(now)
	return r.out
}

// DeleteQuota hands in that a namespace has no quota of its own any more, or that there are no defaults or no total.
func (r *Reconciler) DeleteQuota(now time.Time, namespace string) []Effect {
	r.begin()
	r.state.DeleteQuota(namespace)
	r.decideShort(now)
	return r.out
}

// Demand hands in what a gateway states.
func (r *Reconciler) Demand(now time.Time, d bus.Demand) []Effect {
	r.begin()
	r.decide(now, r.state.ApplyDemand(now, d)...)
	return r.out
}

// Report hands in what a worker says.
func (r *Reconciler) Report(now time.Time, rep bus.Report) []Effect {
	r.begin()
	c := r.state.ApplyReport(now, rep)
	if c.ReportsWanted {
		r.askNode(now, r.state.Nodes[rep.Node])
	}
	if len(c.Foreign) > 0 {
		r.out = append(r.out, Effect{Kind: Tell, Reason: fmt.Sprintf("node %s reports instances of other nodes, which is not taken: %v", rep.Node, c.Foreign)})
	}
	c.Functions = slices.DeleteFunc(c.Functions, func(ref functions.Ref) bool { return r.resting(r.state.Functions[ref]) })
	r.changed(now, c)
	return r.out
}

// Beat says that every input up to now was handed in. It is to be called every bus.BeatEvery: nodes that nothing is heard of meanwhile are lost.
func (r *Reconciler) Beat(now time.Time) []Effect {
	r.begin()
	if c := r.state.Beat(now); len(c.Gone) > 0 {
		r.changed(now, c)
	}
	return r.out
}

// Due does what is to be done at this very time. It is far cheaper than Tick, and there is no harm in calling it too often.
func (r *Reconciler) Due(now time.Time) []Effect {
	r.begin()
	// Those that are left are due at once again; inputs come in between.
	refs := r.due.take(now, passSlice)
	if r.pass.left > 0 && !now.Before(r.pass.next) {
		refs = append(refs, r.pass.take(now, r.state.FunctionList(), passSlice, r.resting)...)
	}
	r.decide(now, refs...)
	return r.out
}

// Tick looks after everything that time alone changes.
func (r *Reconciler) Tick(now time.Time) []Effect {
	r.begin()
	most := passAtOnce
	if r.synced && !r.opened && !now.Before(r.settleAt) {
		// What was to be done while nobody decided waits no longer.
		r.opened, most = true, len(r.state.Functions)
	}
	c := r.state.Expire(now)
	c.Functions = append(c.Functions, r.due.take(now, most)...)
	for ref := range r.watched {
		c.Functions = append(c.Functions, ref)
	}
	for ref := range r.short {
		c.Functions = append(c.Functions, ref)
	}
	if r.opened {
		r.price(now)
		r.pass.begin(now, len(r.state.Functions))
		if r.pass.left > passAtOnce && most == passAtOnce {
			most = passSlice
		}
		c.Functions = append(c.Functions, r.pass.take(now, r.state.FunctionList(), most, r.resting)...)
	}
	c.Freed = false
	r.changed(now, c)
	r.holdForFirst(now)
	if r.cfg.Compact && r.opened {
		r.tidy(now)
	}
	return r.out
}

// Settled says that a change of records that was asked for turned out not to be needed.
func (r *Reconciler) Settled(ref functions.Ref) []Effect {
	r.begin()
	if f := r.state.Functions[ref]; f != nil {
		f.Writing = time.Time{}
	}
	return r.out
}

// Excuse says that no input was taken for a while: silence in that time means nothing.
func (r *Reconciler) Excuse(now time.Time) []Effect {
	r.begin()
	r.state.Excuse(now)
	r.ask(now)
	return r.out
}

func (r *Reconciler) begin() { r.out = r.out[:0] }

func (r *Reconciler) changed(now time.Time, c state.Change) {
	for i := range c.Gone {
		r.state.Remember(now, &c.Gone[i])
		r.gone(now, &c.Gone[i])
	}
	for _, in := range c.Ready {
		r.ready(now, in)
	}
	if !c.Freed {
		r.decide(now, c.Functions...)
		return
	}
	// Whoever had the room that became free has no better right to it than others.
	refs := slices.Clone(c.Functions)
	for ref := range r.short {
		if r.mayFit(ref) {
			refs = append(refs, ref)
		}
	}
	r.decide(now, refs...)
}

// mayFit reports whether a function that lacks instances is worth a look: there is room for what was refused, or it was something else.
func (r *Reconciler) mayFit(ref functions.Ref) bool {
	f := r.state.Functions[ref]
	if f == nil || f.Refused == nil {
		return true
	}
	a, e := r.asides[ref], r.state.Engine()
	e.SetAside(a.node, functions.Resources{}.Sub(a.amount))
	c := e.Place(r.sought(f))
	e.SetAside(a.node, a.amount)
	return c.Placed()
}

// ask wants full reports of all workers, once in a while only.
func (r *Reconciler) ask(now time.Time) {
	if askedLately(now, r.asked) {
		return
	}
	r.asked = now
	r.out = append(r.out, Effect{Kind: AskReports})
}

// askNode wants a full report of one node's worker, once in a while only.
func (r *Reconciler) askNode(now time.Time, n *state.Node) {
	if n == nil || askedLately(now, n.Asked) || askedLately(now, r.asked) {
		return
	}
	n.Asked = now
	r.out = append(r.out, Effect{Kind: Send, Command: bus.Command{
		Envelope: bus.Envelope{Schema: bus.Schema, Node: n.ID, Epoch: bus.Epoch},
		Action:   bus.ActionReport, Reason: "a report was missed", Asked: now,
	}})
}

// askAbout wants to know how an instance is, once in a while only.
func (r *Reconciler) askAbout(now time.Time, in *state.Instance) {
	if askedLately(now, in.Asked) {
		return
	}
	in.Asked = now
	r.command(in, bus.Command{Action: bus.ActionReport, Reason: "it may be idle", Asked: now})
}

func askedLately(now, asked time.Time) bool {
	return !asked.IsZero() && now.Sub(asked) < askRepeat
}

// decideShort decides for those again that lack room.
func (r *Reconciler) decideShort(now time.Time) { r.decide(now, slices.Collect(maps.Keys(r.short))...) }

func (r *Reconciler) look(f *state.Function) { r.watched[f.Ref] = struct{}{} }

func (r *Reconciler) function(now time.Time, f *state.Function) {
	f.Pending, f.Refused = "", nil
	r.repeat(now, f)
	if f.Record == nil {
		f.Desired, f.Reason = 0, "the function is deleted"
		delete(r.short, f.Ref)
		for _, in := range f.Ordered() {
			r.drain(now, f, in, "the function was deleted")
		}
		return
	}
	lacks := r.scale(now, f)
	lacks = r.deploy(now, f) || lacks
	if lacks {
		if _, known := r.short[f.Ref]; !known {
			r.short[f.Ref] = now
		}
	} else {
		delete(r.short, f.Ref)
	}
	r.drainOld(now, f)
	r.leaveNodes(now, f)
	r.stopSurplus(now, f)
}

// leaving reports whether a node is about to give its instances up.
func (r *Reconciler) leaving(id functions.NodeID) bool {
	n := r.state.Nodes[id]
	return n == nil || n.Lost || n.Draining
}

func (r *Reconciler) count(f *state.Function, id functions.RevisionID) (active, ready int) {
	return f.Count(id, r.leaving)
}
