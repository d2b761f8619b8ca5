package reconcile

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// giver says whose busy instances may be drained for one that finds no room.
type giver struct {
	// own: those of other revisions of the function itself, which the new one replaces.
	own bool
	// others: those of functions that have more than one, beyond what each must keep.
	others bool
}

// serves reports whether the function has an instance, of whatever revision, that takes requests or will.
func serves(f *state.Function) bool {
	for _, in := range f.Instances {
		if in.Active() {
			return true
		}
	}
	return false
}

// makeRoom stops idle instances, or drains busy ones where it may, so that what was refused will fit, and says so; it is empty when that
// cannot be. What is leaving already counts as room to come: nothing more is stopped for it.
func (r *Reconciler) makeRoom(now time.Time, f *state.Function, rev *state.Revision, req *placement.Request, quota placement.Bound, from giver) string {
	if !rev.Made.IsZero() && now.Sub(rev.Made) < reclaimEvery {
		return rev.Making
	}
	rev.Made = now
	if quota.Name != "" {
		rev.Making = r.evictUnderQuota(now, f, rev, req, quota.Of)
	} else {
		rev.Making = r.evictOnNode(now, f, rev, req)
	}
	if rev.Making == "" && (from.own || from.others) {
		rev.Making = r.drainFor(now, f, rev, r.pools(f, req, quota), req, from)
	}
	return rev.Making
}

// drainFor drains busy instances, of the pool where the fewest will do.
func (r *Reconciler) drainFor(now time.Time, f *state.Function, rev *state.Revision, pools []pool, req *placement.Request, from giver) string {
	var best []functions.InstanceID
	var at *pool
	for i := range pools {
		p := &pools[i]
		chosen, waits := r.givers(f, rev, p, req.Resources, from)
		if waits {
			r.keepFor(now, p.node, req)
			return "instances are ending " + p.where + " that make room for it"
		}
		if len(chosen) > 0 && (best == nil || len(chosen) < len(best)) {
			best, at = chosen, p
		}
	}
	if len(best) == 0 {
		return ""
	}
	for _, id := range best {
		in := r.state.Instances[id]
		r.drain(now, r.state.Functions[in.Ref()], in, "its room is needed by "+needy(f, rev, in))
	}
	r.keepFor(now, at.node, req)
	return count(len(best), "instance") + " being drained for it"
}

// keepFor keeps the room that is being made on a node for the function that is decided for.
func (r *Reconciler) keepFor(now time.Time, node placement.NodeRef, req *placement.Request) {
	if r.kept.node != node {
		r.kept = aside{node: node, amount: req.Resources, since: now}
	}
}

// pool is where room can be made: the namespace where its quota refused, else a node.
type pool struct {
	// instances are those in it, by function.
	instances map[*state.Function][]*state.Instance
	free      functions.Resources
	where     string
	// node is zero for a namespace.
	node placement.NodeRef
}

func (p *pool) add(owner *state.Function, in *state.Instance) {
	if p.instances == nil {
		p.instances = map[*state.Function][]*state.Instance{}
	}
	p.instances[owner] = append(p.instances[owner], in)
}

// pools lists where an end would help: only nodes that would take the request if they were empty, and of which something is taken.
func (r *Reconciler) pools(f *state.Function, req *placement.Request, quota placement.Bound) []pool {
	if quota.Name != "" {
		return []pool{r.quotaPool(f.Namespace, quota.Of)}
	}
	var out []pool
	for _, n := range r.state.NodeOrder() {
		if len(n.Instances) == 0 || !r.state.Engine().Suits(n.Ref, req) {
			continue
		}
		p := pool{free: r.state.Free(n), where: "on " + n.Name, node: n.Ref}
		for _, in := range n.Instances {
			p.add(r.state.Functions[in.Ref()], in)
		}
		out = append(out, p)
	}
	return out
}

// quotaPool is where room under a quota can be made.
func (r *Reconciler) quotaPool(namespace, of string) pool {
	p := pool{where: "in the namespace"}
	all := of == functions.QuotaTotal
	if all {
		namespace, p.where = of, "in all namespaces together"
	}
	p.free = headroom(r.state.Budget(namespace))
	for ref, owner := range r.state.Functions {
		if !all && ref.Namespace != namespace {
			continue
		}
		for _, in := range owner.Instances {
			p.add(owner, in)
		}
	}
	return p
}

// headroom is what the quota still allows; a bound that is not set allows everything.
func headroom(b placement.Budget) functions.Resources {
	left := func(bound, used int64) int64 {
		if bound == 0 {
			return math.MaxInt64 / 4
		}
		return bound - used
	}
	return functions.Resources{
		CPU:       left(b.Quota.CPU, b.Used.CPU),
		Memory:    left(b.Quota.Memory, b.Used.Memory),
		Instances: left(b.Quota.Instances, b.Used.Instances),
	}
}

// needy names for whom an instance leaves: another function, or another revision of its own.
func needy(f *state.Function, rev *state.Revision, in *state.Instance) string {
	if in.Ref() == f.Ref {
		return "revision " + string(rev.Record.ID)
	}
	return f.String()
}

// count writes how many of what there are.
func count(n int, what string) string {
	if n == 1 {
		return "an " + what + " is"
	}
	return fmt.Sprintf("%d %ss are", n, what)
}

// givers names the instances of the pool that are to be drained so that need will fit, or says that those which are leaving will do in
// time. The function's own older ones come first; of the others that function gives which has the most, and each keeps one at least.
func (r *Reconciler) givers(f *state.Function, rev *state.Revision, p *pool, need functions.Resources, from giver) (chosen []functions.InstanceID, waits bool) {
	free := p.free
	spare := map[*state.Function][]*state.Instance{}
	for owner, list := range p.instances {
		for _, in := range list {
			if !in.Active() {
				free = free.Add(in.Reserved)
				continue
			}
			gives := from.own && in.Revision != rev.Record.ID
			if owner != f {
				gives = from.others && owner.Record != nil && in.Revision == owner.Record.Live
			}
			if gives && in.State.Serves() {
				spare[owner] = append(spare[owner], in)
			}
		}
	}
	if need.Fits(free) {
		return nil, true
	}
	type gift struct {
		*state.Instance
		// has is how many its function has before it gives this one.
		has int
	}
	var gifts []gift
	for owner, list := range spare {
		slices.SortFunc(list, func(a, b *state.Instance) int {
			return cmp.Or(cmp.Compare(a.Held, b.Held), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Instance, b.Instance))
		})
		has, keep := math.MaxInt, 0
		if owner != f {
			has, _ = r.count(owner, owner.Record.Live)
			keep = 1
			if live := owner.Revision(owner.Record.Live); live != nil {
				keep = max(keep, live.Record.Config.Scale.Rest())
			}
		}
		for i, in := range list[:max(0, min(len(list), has-keep))] {
			gifts = append(gifts, gift{in, has - i})
		}
	}
	slices.SortFunc(gifts, func(a, b gift) int {
		return cmp.Or(cmp.Compare(b.has, a.has), cmp.Compare(a.Held, b.Held), cmp.Compare(a.Instance.Instance, b.Instance.Instance))
	})
	for i, g := range gifts {
		if free = free.Add(g.Reserved); !need.Fits(free) {
			continue
		}
		// The last one made it fit; of those before, what is not needed stays.
		for j := range i {
			if without := free.Sub(gifts[j].Reserved); need.Fits(without) {
				free = without
			} else {
				chosen = append(chosen, gifts[j].Instance.Instance)
			}
		}
		return append(chosen, g.Instance.Instance), false
	}
	return nil, false
}
