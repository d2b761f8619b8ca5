package scheduler

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/fleet"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// Pool is where workers come from. It starts them and keeps them alive; what runs on them is the scheduler's affair, and so is whether they are alive:
// their own reports say that sooner.
type Pool interface {
	// Run follows the pool until ctx ends, and returns nil then. It calls heard with what the pool is, whenever that changes.
	Run(ctx context.Context, heard func(PoolState)) error
	// Resize tells the pool to have count workers, if it is still what from says; why is for people.
	Resize(ctx context.Context, from PoolState, count int, why string) error
}

// PoolState is what a pool is.
type PoolState struct {
	// Name is what it is, for people.
	Name string
	// Elastic says that the pool may be resized. Count is how many workers it was told to have, Min and Max are its owner's bounds.
	Elastic         bool
	Count, Min, Max int
	// Busy says why it cannot be resized now; empty when it can.
	Busy string
	// Members are the workers that it runs.
	Members []Member
	// Version tells states apart, for Resize.
	Version uint64
}

// Member is a worker in a pool.
type Member struct {
	// Name is what its worker's label functions.LabelMember says.
	Name string
	// Index is its place: when there are too many, the pool takes away the highest.
	Index int
	Since time.Time
	// Leaving is why the pool is about to stop it, Closed why nothing more should be placed on it; empty where that is not so.
	Leaving, Closed string
}

// Static is the pool of those who start workers themselves: it never changes by itself.
type Static struct{}

// Run waits until ctx ends.
func (Static) Run(ctx context.Context, _ func(PoolState)) error {
	<-ctx.Done()
	return nil
}

// Resize refuses.
func (Static) Resize(context.Context, PoolState, int, string) error {
	return fault.New(fault.CodeUnavailable, "workers join by themselves, and leave when they are told to").
		WithHint("start one: tatami worker --join; or take one away: tatami node drain NODE, then stop it")
}

const (
	// poolTick is how often the pool is thought about while nothing is heard of it.
	poolTick = time.Second
	// resizeTimeout bounds one request to the pool, resizeAgain is the time between two.
	resizeTimeout = 10 * time.Second
	resizeAgain   = 2 * time.Second
)

// followPool keeps the pool as large as what runs and waits needs.
func (s *Scheduler) followPool(ctx context.Context, g *errgroup.Group) {
	f := &follower{s: s, changed: make(chan struct{}, 1)}
	g.Go(func() error { return s.cfg.Pool.Run(ctx, f.heard) })
	g.Go(func() error { f.run(ctx); return nil })
}

// follower decides about the pool.
type follower struct {
	s       *Scheduler
	changed chan struct{}

	mu    sync.Mutex
	state *PoolState

	// What follows belongs to run.
	memory fleet.Memory
	reason string
	asked  time.Time
	// resized is the last resize that the pool took.
	resized *bus.PoolResize
}

func (f *follower) heard(p PoolState) {
	f.mu.Lock()
	f.state = &p
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *follower) run(ctx context.Context) {
	select {
	case <-f.s.ready:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(poolTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-f.changed:
		}
		f.mu.Lock()
		p := f.state
		f.mu.Unlock()
		if p != nil {
			f.pass(ctx, p)
		}
	}
}

// pass decides once, and has the pool resized where that is decided.
func (f *follower) pass(ctx context.Context, p *PoolState) {
	done := make(chan *poolView, 1)
	f.s.offer(ctx, func(now time.Time) []reconcile.Effect {
		d, out := plan(now, f.s.core.State(), p, f.s.cfg.Fleet, f.memory)
		done <- viewOf(f.s.core.State(), p, d)
		return f.s.core.Withdraw(now, out)
	})
	select {
	case <-ctx.Done():
	case v := <-done:
		f.memory = v.decision.Memory
		f.resize(ctx, p, v.decision)
		v.Resized = f.resized
		f.s.pool.Store(v)
	}
}

// plan decides about a pool, and says which of its nodes are to take nothing more, or to be emptied.
func plan(now time.Time, st *state.State, p *PoolState, policy fleet.Policy, m fleet.Memory) (fleet.Decision, map[functions.NodeID]reconcile.Withdrawal) {
	out := withdrawals(st, p)
	if !p.Elastic {
		return fleet.Decision{Count: p.Count}, out
	}
	d := fleet.Decide(now, view(st, p), policy, m)
	if _, named := out[d.Drain]; d.Drain != "" && !named {
		out[d.Drain] = reconcile.Withdrawal{Empty: true, Why: "the pool needs fewer workers"}
	}
	return d, out
}

func (f *follower) resize(ctx context.Context, p *PoolState, d fleet.Decision) {
	if d.Reason != f.reason {
		f.s.log.Debug("the pool", "count", p.Count, "wanted", d.Count, "reason", d.Reason)
		f.reason = d.Reason
	}
	if d.Count == p.Count || time.Since(f.asked) < resizeAgain {
		return
	}
	f.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, resizeTimeout)
	defer cancel()
	if err := f.s.cfg.Pool.Resize(ctx, *p, d.Count, d.Reason); err != nil {
		f.s.log.Warn("the pool was not resized", "count", p.Count, "wanted", d.Count, "reason", d.Reason, "err", err)
		return
	}
	f.resized = &bus.PoolResize{At: f.asked, From: p.Count, To: d.Count, Reason: d.Reason}
	f.s.log.Info("the pool was resized", "count", p.Count, "wanted", d.Count, "reason", d.Reason)
}

// poolView is the pool as others see it.
type poolView struct {
	bus.PoolStatus
	members  map[string]bool
	decision fleet.Decision
}

func viewOf(st *state.State, p *PoolState, d fleet.Decision) *poolView {
	v := &poolView{
		decision:   d,
		PoolStatus: bus.PoolStatus{Name: p.Name, Elastic: p.Elastic, Count: p.Count, Min: p.Min, Max: p.Max, Wanted: d.Count, Reason: d.Reason, Busy: p.Busy},
		members:    make(map[string]bool, len(p.Members)),
	}
	nodes := nodesByMember(st)
	for _, m := range p.Members {
		v.members[m.Name] = true
		if nodes[m.Name] != nil {
			v.Running++
		}
	}
	for _, l := range lacking(st) {
		v.Lacking += l.Count
	}
	return v
}

// show puts the pool into the picture; a nil one is that of workers that join by themselves.
func (v *poolView) show(o *bus.Overview) {
	if v == nil {
		return
	}
	o.Pool = &v.PoolStatus
	for i := range o.Nodes {
		if n := &o.Nodes[i]; v.members[n.Labels[functions.LabelMember]] {
			n.Pool = v.Name
		}
	}
}

// nodesByMember finds the nodes of a pool.
func nodesByMember(st *state.State) map[string]*state.Node {
	out := map[string]*state.Node{}
	for _, n := range st.NodeOrder() {
		if name := n.Labels[functions.LabelMember]; name != "" && !n.Lost {
			out[name] = n
		}
	}
	return out
}

// withdrawals is what the pool does not leave to the scheduler.
func withdrawals(st *state.State, p *PoolState) map[functions.NodeID]reconcile.Withdrawal {
	out := map[functions.NodeID]reconcile.Withdrawal{}
	nodes := nodesByMember(st)
	for _, m := range p.Members {
		n := nodes[m.Name]
		switch {
		case n == nil:
		case m.Leaving != "":
			out[n.ID] = reconcile.Withdrawal{Empty: true, Why: m.Leaving}
		case m.Closed != "":
			out[n.ID] = reconcile.Withdrawal{Why: m.Closed}
		}
	}
	return out
}

// view is the pool and what needs it, as the policy sees them.
func view(st *state.State, p *PoolState) fleet.View {
	v := fleet.View{Count: p.Count, Min: p.Min, Max: p.Max, Busy: p.Busy, Lacking: lacking(st)}
	nodes := nodesByMember(st)
	for _, m := range p.Members {
		if m.Leaving != "" {
			continue
		}
		w := fleet.Worker{Index: m.Index, Since: m.Since}
		if n := nodes[m.Name]; n != nil && n.Known {
			w.Node, w.Allocatable, w.Reserved, w.Instances = n.ID, n.Allocatable, st.Reserved(n), len(n.Instances)
			w.Open = m.Closed == "" && !n.Cordoned && !n.Report.Draining && n.Settings.Intent != functions.NodeDrained
		}
		v.Workers = append(v.Workers, w)
	}
	if last := fleet.Last(v.Workers); last != nil && last.Node != "" && last.Instances > 0 && len(v.Lacking) == 0 {
		last.Fits = st.Engine().Vacate(st.Nodes[last.Node].Ref)
	}
	return v
}

// lacking is what was refused for want of room at the last look.
func lacking(st *state.State) []fleet.Lack {
	var out []fleet.Lack
	for _, f := range st.Functions {
		if f.Record == nil || f.Refused == nil || f.Refused.Quota != nil {
			continue
		}
		rev := f.Revision(f.Sought)
		if rev == nil {
			continue
		}
		n := 1
		if f.Sought == f.Record.Live {
			active, _ := f.Count(f.Sought, func(id functions.NodeID) bool { on := st.Nodes[id]; return on == nil || on.Lost || on.Draining })
			n = max(1, f.Desired-active)
		}
		each := rev.Request.Resources
		each.Instances = max(each.Instances, 1)
		out = append(out, fleet.Lack{Each: each, Count: n})
	}
	return out
}
