package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// reclaimEvery is how old a look at what is idle may be, and how long a function without room waits between two tries to make some.
const reclaimEvery = 50 * time.Millisecond

// reclaim is what could make room, as seen at a time.
type reclaim struct {
	at time.Time
	// yards are the nodes with something idle or leaving, by id.
	yards []*yard
	// spare is how many instances of its live revision a function may still give.
	spare map[*state.Function]int
	// given counts those within one choice, list is its scratch.
	given map[*state.Function]int
	list  []keepalive.Idle
}

// yard is what is idle on a node, the least valuable first, and what is leaving it.
type yard struct {
	node    *state.Node
	idle    []idle
	leaving []*state.Instance
}

// free is what the node has free once those that are leaving it have left.
func (r *Reconciler) free(y *yard) functions.Resources {
	free := r.state.Free(y.node)
	for _, in := range y.leaving {
		if in.Reservation != 0 && in.Leaving() {
			free = free.Add(in.Reserved)
		}
	}
	return free
}

type idle struct {
	keepalive.Idle
	in    *state.Instance
	owner *state.Function
	// live says that it counts against what its function may spare.
	live bool
	// fresh says that it was used within evictIdle.
	fresh bool
}

// reclaimable finds what is idle and what is leaving, unless that was done just now.
func (r *Reconciler) reclaimable(now time.Time) *reclaim {
	c := &r.reclaim
	if c.spare != nil && now.Sub(c.at) < reclaimEvery {
		return c
	}
	*c = reclaim{at: now, yards: c.yards[:0], spare: map[*state.Function]int{}, given: map[*state.Function]int{}, list: c.list}
	for _, n := range r.state.NodeOrder() {
		if len(n.Instances) == 0 {
			continue
		}
		y := &yard{node: n}
		for _, in := range n.Instances {
			if in.Leaving() {
				y.leaving = append(y.leaving, in)
			} else if i, ok := r.idle(now, c, in); ok {
				y.idle = append(y.idle, i)
			}
		}
		slices.SortFunc(y.idle, func(a, b idle) int { return keepalive.ByValue(a.Idle, b.Idle) })
		c.yards = append(c.yards, y)
	}
	return c
}

// idle reports whether an instance may make room for another function: idle, neither of a candidate nor one that its function must keep.
func (r *Reconciler) idle(now time.Time, c *reclaim, in *state.Instance) (idle, bool) {
	f := r.state.Functions[in.Ref()]
	k := idleness(f, in)
	quiet := now.Sub(k.LastUsed)
	if !in.Active() || k.Busy || quiet < evictSoon || f.Record != nil && in.Revision == f.Record.Candidate {
		return idle{}, false
	}
	i := idle{Idle: keepalive.Idle{ID: in.Instance, Value: r.worth(f, in), LastUsed: k.LastUsed, Resources: in.Reserved}, in: in, owner: f, fresh: quiet < evictIdle}
	i.live = f.Record != nil && in.Revision == f.Record.Live
	if _, known := c.spare[f]; !known {
		c.spare[f] = r.spare(f)
	}
	return i, !i.live || c.spare[f] > 0
}

// spare is how many instances of its live revision the function has beyond what it must keep: its least number, and what it needs while in demand.
func (r *Reconciler) spare(f *state.Function) int {
	if f.Record == nil {
		return 0
	}
	live := f.Revision(f.Record.Live)
	if live == nil {
		return 0
	}
	keep := live.Record.Config.Scale.Rest()
	if w, b, i := f.Level(); w+b+i > 0 {
		keep = max(keep, f.Desired)
	}
	active, _ := r.count(f, f.Record.Live)
	return active - keep
}

// worth is the value of keeping an instance.
func (r *Reconciler) worth(f *state.Function, in *state.Instance) float64 {
	var start time.Duration
	if rev := f.Revisions[in.Revision]; rev != nil {
		start = rev.ColdStart
	}
	return keepalive.Value(in.Clock, in.Uses, start, r.state.Engine().Share(in.Reserved))
}

// from lists what of some idle instances may go for an instance of rev, the least valuable first, those that were used within evictIdle where fresh is
// set. A function gives nothing for itself, except that its other revisions give way, idle for a while or not: own are those of its instances that lie there.
func (r *Reconciler) from(c *reclaim, all []idle, own []*state.Instance, f *state.Function, rev *state.Revision, fresh bool) []keepalive.Idle {
	clear(c.given)
	c.list = c.list[:0]
	for _, in := range own {
		if in.Revision != rev.Record.ID && in.Revision != f.Record.Candidate && in.Active() && in.Held == 0 && in.State.Serves() {
			c.list = append(c.list, keepalive.Idle{ID: in.Instance, LastUsed: in.LastUsed, Resources: in.Reserved})
		}
	}
	slices.SortFunc(c.list, keepalive.ByValue)
	for i := range all {
		x := &all[i]
		if x.owner == f || x.fresh && !fresh || x.in.Reservation == 0 || !x.in.Active() || x.in.Held > 0 || x.live && c.given[x.owner] >= c.spare[x.owner] {
			continue
		}
		if x.live {
			c.given[x.owner]++
		}
		c.list = append(c.list, x.Idle)
	}
	return c.list
}

// evictOnNode stops the idle instances whose end makes room for the request on a node and which are worth the least together, over all nodes. It says
// what it does, or that what is leaving already will do; nothing where no node can be made to fit.
func (r *Reconciler) evictOnNode(now time.Time, f *state.Function, rev *state.Revision, req *placement.Request) string {
	c := r.reclaimable(now)
	own := map[functions.NodeID][]*state.Instance{}
	for _, in := range f.Instances {
		own[in.Node] = append(own[in.Node], in)
	}
	best, at, coming := r.cheapest(c, own, f, rev, req, false)
	if best == nil && coming == nil {
		best, at, _ = r.cheapest(c, own, f, rev, req, true)
	}
	if coming != nil {
		r.keepFor(now, coming.node.Ref, req)
		return "room is being made on " + coming.node.Name
	}
	if best == nil {
		return ""
	}
	r.keepFor(now, at.node.Ref, req)
	for _, i := range best {
		at.leaving = append(at.leaving, r.state.Instances[i.ID])
	}
	return r.evict(now, c, f, rev, best, "on "+at.node.Name)
}

// cheapest returns the idle instances of one node whose end makes room for the request and which are worth the least together, over all nodes; or the
// node where what is leaving already makes room.
func (r *Reconciler) cheapest(c *reclaim, own map[functions.NodeID][]*state.Instance, f *state.Function, rev *state.Revision, req *placement.Request, fresh bool) (best []keepalive.Idle, at, coming *yard) {
	var least float64
	for _, y := range c.yards {
		if !r.state.Engine().Suits(y.node.Ref, req) {
			continue
		}
		free := r.free(y)
		if req.Resources.Fits(free) {
			return nil, nil, y
		}
		list := r.from(c, y.idle, own[y.node.ID], f, rev, fresh)
		if len(list) == 0 || best != nil && list[0].Value >= least {
			continue
		}
		if chosen, total := keepalive.Cheapest(list, req.Resources, free); len(chosen) > 0 && (best == nil || total < least) {
			best, least, at = chosen, total, y
		}
	}
	return best, at, nil
}

// evictUnderQuota stops the idle instances of the namespace, or of all where the total refused, whose end lets the request in.
func (r *Reconciler) evictUnderQuota(now time.Time, f *state.Function, rev *state.Revision, req *placement.Request, of string) string {
	p := r.quotaPool(f.Namespace, of)
	for _, list := range p.instances {
		for _, in := range list {
			if in.Leaving() {
				p.free = p.free.Add(in.Reserved)
			}
		}
	}
	if req.Resources.Fits(p.free) {
		return "room is being made " + p.where
	}
	c := r.reclaimable(now)
	var all []idle
	for _, y := range c.yards {
		for _, i := range y.idle {
			if _, within := p.instances[i.owner]; within {
				all = append(all, i)
			}
		}
	}
	slices.SortFunc(all, func(a, b idle) int { return keepalive.ByValue(a.Idle, b.Idle) })
	best, _ := keepalive.Cheapest(r.from(c, all, p.instances[f], f, rev, false), req.Resources, p.free)
	if best == nil {
		best, _ = keepalive.Cheapest(r.from(c, all, p.instances[f], f, rev, true), req.Resources, p.free)
	}
	if best == nil {
		return ""
	}
	return r.evict(now, c, f, rev, best, p.where)
}

// evict stops idle instances and says so.
func (r *Reconciler) evict(now time.Time, c *reclaim, f *state.Function, rev *state.Revision, chosen []keepalive.Idle, where string) string {
	var names []string
	for _, i := range chosen {
		in := r.state.Instances[i.ID]
		owner := r.state.Functions[in.Ref()]
		if owner.Record != nil && in.Revision == owner.Record.Live {
			c.spare[owner]--
		}
		r.state.Clock = max(r.state.Clock, i.Value)
		why, quiet := "idle, and its room is needed by "+needy(f, rev, in), time.Duration(0)
		if owner != f {
			why += ", the least loss: " + r.value(owner, in)
			quiet = evictSoon
		}
		r.stop(now, owner, in, quiet, why)
		names = append(names, fmt.Sprintf("%s of %s", in.Instance, owner.Ref))
	}
	const named = 3
	if more := len(names) - named; more > 0 {
		names = append(names[:named], fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("%s being stopped for it %s: %s", count(len(chosen), "idle instance"), where, strings.Join(names, ", "))
}

// value says for people what makes an instance worth as much as it is.
func (r *Reconciler) value(f *state.Function, in *state.Instance) string {
	start := "an unknown time"
	if rev := f.Revisions[in.Revision]; rev != nil && rev.ColdStart > 0 {
		start = rev.ColdStart.Round(time.Millisecond).String()
	}
	uses := "used once"
	if in.Uses > 1 {
		uses = fmt.Sprintf("used %d times", in.Uses)
	}
	return fmt.Sprintf("%s, %s to start again, %.2g%% of all nodes", uses, start, 100*r.state.Engine().Share(in.Reserved))
}
