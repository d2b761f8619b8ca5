package live

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
)

// picture is a Snapshot in the making, with what the metrics want besides.
type picture struct {
	Snapshot
	more map[functions.Ref]*detail

	once    sync.Once
	encoded []byte
	err     error
}

// detail is what a Snapshot does not show of a function.
type detail struct {
	// own is what this process's gateway did, new what all gateways did since the last picture.
	own Traffic
	new counts
	// lastMinute is what happened in it; the rises are those of the last 15 minutes.
	lastMinute  counts
	deadGrown   int
	failedGrown uint64
}

// collect reads every source and makes the picture of now. It runs in one goroutine.
func (l *Live) collect(ctx context.Context) *picture {
	octx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	overview, err := l.src.Overview(octx)
	cancel()
	now := l.cfg.Now()
	p := &picture{
		Snapshot: Snapshot{
			Schema: Schema, At: now.UTC().Truncate(time.Millisecond),
			// Empty lists are written as such: a reader need not tell them from missing ones.
			Problems: []Verdict{}, Notices: []string{}, Servers: []Server{}, Pools: []bus.PoolStatus{}, Nodes: []Node{}, Instances: []Instance{}, Functions: []Function{}, Namespaces: []Namespace{},
		},
		more: map[functions.Ref]*detail{},
	}
	if err != nil {
		if l.lostSince.IsZero() {
			l.lostSince = p.At
			l.log.Warn("the scheduler does not answer", obs.Err(err))
		}
		since := l.lostSince
		p.Stale = &since
		overview = l.overview
	} else {
		if !l.lostSince.IsZero() {
			l.log.Info("the scheduler answers again")
		}
		l.lostSince, l.overview = time.Time{}, overview
	}
	if overview.Pool != nil {
		p.Pools = append(p.Pools, *overview.Pool)
	}
	if l.src.Servers != nil {
		p.Servers = append(p.Servers, l.src.Servers()...)
	}
	var traffic Gateways
	if l.src.Traffic != nil {
		tctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		traffic = l.src.Traffic(tctx)
		cancel()
	}
	l.nodes(p, overview, now)
	l.instances(p, overview, now)
	happened := l.functions(p, overview, traffic, now)
	p.quotas(overview)
	if l.src.Notices != nil {
		for _, n := range l.src.Notices() {
			if n != "" {
				p.Notices = append(p.Notices, n)
			}
		}
	}
	from := l.collected
	if from.IsZero() {
		from = now
	}
	l.history.add(now, from, p.Totals, happened.requests, happened.errors, happened.cold)
	l.collected = now
	p.judge(now)
	return p
}

// quotas lists the namespaces that something bounds, and all together where that is bounded.
func (p *picture) quotas(o bus.Overview) {
	use := map[string]Namespace{}
	add := func(namespace string, more Namespace) {
		for _, name := range []string{namespace, functions.QuotaTotal} {
			n := use[name]
			n.Used, n.Functions, n.Concurrent, n.Rate = n.Used.Add(more.Used), n.Functions+more.Functions, n.Concurrent+more.Concurrent, n.Rate+more.Rate
			use[name] = n
		}
	}
	for _, f := range p.Functions {
		add(f.Namespace, Namespace{Concurrent: f.InFlight, Rate: f.RPS})
	}
	for _, n := range o.Namespaces {
		add(n.Namespace, Namespace{Used: n.Used, Functions: n.Functions})
	}
	all := o.Namespaces
	if o.Total != nil {
		all = append(slices.Clone(all), *o.Total)
	}
	for _, n := range all {
		if n.Effective == nil || n.Effective.Unbounded() {
			continue
		}
		u := use[n.Namespace]
		u.Namespace, u.Quota, u.Rate = n.Namespace, *n.Effective, round(u.Rate, 100)
		p.Namespaces = append(p.Namespaces, u)
	}
	slices.SortFunc(p.Namespaces, func(a, b Namespace) int { return cmp.Compare(a.Namespace, b.Namespace) })
}

func (l *Live) nodes(p *picture, o bus.Overview, now time.Time) {
	p.Totals.Nodes = 0
	for _, n := range o.Nodes {
		node := Node{
			ID: n.ID, Name: cmp.Or(n.Name, string(n.ID)), State: NodeReady, Architecture: n.Architecture, LastSeen: n.LastSeen, Pool: n.Pool,
			CPU:    Resource{Capacity: n.Capacity.CPU, Allocatable: n.Allocatable.CPU, Reserved: n.Reserved.CPU, Used: n.CPUUsed},
			Memory: Resource{Capacity: n.Capacity.Memory, Allocatable: n.Allocatable.Memory, Reserved: n.Reserved.Memory, Used: n.MemoryUsed},
			Slots:  n.Allocatable.Instances, Reason: n.IntentReason,
		}
		if n.Drain != nil {
			node.Left = n.Drain.Left
		}
		switch {
		case n.Departed:
			node.State = NodeLeft
		case p.Stale == nil && now.Sub(n.LastSeen) > l.cfg.LostAfter:
			node.State = NodeLost
		case n.Drain != nil && n.Drain.Left == 0:
			node.State = NodeDrained
		case n.Draining || n.Drain != nil:
			node.State = NodeDraining
		case n.Cordoned:
			node.State = NodeCordoned
		}
		p.Nodes = append(p.Nodes, node)
		if node.State != NodeLeft {
			p.Totals.Nodes++
		}
	}
	slices.SortFunc(p.Nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}

func (l *Live) instances(p *picture, o bus.Overview, now time.Time) {
	seen := make(map[functions.InstanceID]usage, len(o.Instances))
	byNode := make(map[functions.NodeID]*Node, len(p.Nodes))
	for i := range p.Nodes {
		byNode[p.Nodes[i].ID] = &p.Nodes[i]
	}
	for _, in := range o.Instances {
		if in.State.Gone() {
			continue
		}
		u := l.usage[in.Instance].next(now, in.Usage.CPU)
		seen[in.Instance] = u
		p.Instances = append(p.Instances, Instance{
			ID: in.Instance, Node: in.Node, Namespace: in.Namespace, Function: in.Function, Revision: in.Revision,
			State: in.State, Reason: in.Reason, Placement: in.Placement, Held: in.Held, Slots: in.Slots,
			CPU: in.Reserved.CPU, Memory: in.Reserved.Memory, CPUUsed: u.millis, MemUsed: in.Usage.Memory,
			Since: in.Since, Adopted: in.Adopted, Start: startTime(in.Phases),
		})
		if n := byNode[in.Node]; n != nil {
			n.CPU.Instances += u.millis
			n.Memory.Instances += in.Usage.Memory
		}
		switch in.State {
		case functions.InstanceStarting:
			p.Totals.Starting++
		case functions.InstanceDraining:
			p.Totals.Draining++
		case functions.InstanceFrozen:
			p.Totals.Frozen++
			p.Totals.Ready++
		default:
			p.Totals.Ready++
		}
	}
	l.usage = seen
	slices.SortFunc(p.Instances, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	p.Totals.Instances = len(p.Instances)
	for _, n := range p.Nodes {
		if n.State == NodeLeft {
			continue
		}
		p.Totals.CPU = p.Totals.CPU.add(n.CPU)
		p.Totals.Memory = p.Totals.Memory.add(n.Memory)
	}
}

func (r Resource) add(o Resource) Resource {
	return Resource{r.Capacity + o.Capacity, r.Allocatable + o.Allocatable, r.Reserved + o.Reserved, r.Used + o.Used, r.Instances + o.Instances}
}

// functions merges the three sources by name, fills the totals and returns what happened since the last picture.
func (l *Live) functions(p *picture, o bus.Overview, traffic Gateways, now time.Time) counts {
	all := map[functions.Ref]*Function{}
	at := func(ref functions.Ref) *Function {
		f := all[ref]
		if f == nil {
			f = &Function{Namespace: ref.Namespace, Function: ref.Name}
			all[ref] = f
			p.more[ref] = &detail{}
		}
		return f
	}
	for _, s := range o.Functions {
		f := at(functions.Ref{Namespace: s.Namespace, Name: s.Function})
		f.Desired, f.Starting, f.Ready, f.Frozen, f.Draining = s.Desired, s.Starting, s.Ready, s.Frozen, s.Draining
		f.Reason, f.Pending, f.StartFailures = s.Reason, s.Pending, s.StartFailures
	}
	for _, t := range traffic.All {
		f := at(t.ref())
		f.InFlight, f.Waiting = t.InFlight, t.Waiting
		f.P50, f.P99 = millis(t.P50), millis(t.P99)
	}
	for _, g := range traffic.Each {
		for _, t := range g.Functions {
			at(t.ref())
			if g.Own {
				p.more[t.ref()].own = t
			}
		}
	}
	l.gateways(p, traffic.Each, now)
	if l.src.Queues != nil {
		for ref, q := range l.src.Queues() {
			f := at(ref)
			f.Queue = QueueDepth{Pending: q.Pending, Scheduled: q.Scheduled, Running: q.Running, Dead: q.Dead}
			if !q.Oldest.IsZero() {
				t := q.Oldest.UTC()
				f.Queue.Oldest = &t
			}
		}
	}
	var happened, minute counts
	for ref, f := range all {
		more := p.more[ref]
		t := l.tracks[ref]
		if t == nil {
			t = &track{}
			l.tracks[ref] = t
		}
		t.add(now, more.new, f.Queue.Dead, f.StartFailures)
		happened = happened.add(more.new)
		f.RPS, f.Spark = t.rps(), t.spark()
		sum, recent := t.over(sparkLen), t.over(2)
		f.Requests, f.Errors, f.ColdStarts, f.ErrorShare = sum.requests, sum.errors, sum.cold, recent.errorShare()
		minute = minute.add(recent)
		more.lastMinute = recent
		more.deadGrown, more.failedGrown = t.grown(f.Queue.Dead, f.StartFailures)
		p.Functions = append(p.Functions, *f)
	}
	for ref := range l.tracks {
		if all[ref] == nil {
			delete(l.tracks, ref)
		}
	}
	slices.SortFunc(p.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function))
	})
	p.sum(minute)
	return happened
}

// sum fills the totals from the functions.
func (p *picture) sum(minute counts) {
	t := &p.Totals
	t.Functions = len(p.Functions)
	t.ErrorShare = minute.errorShare()
	var ran []Function
	for _, f := range p.Functions {
		t.RPS += f.RPS
		t.Requests += f.Requests
		t.Errors += f.Errors
		t.ColdStarts += f.ColdStarts
		t.InFlight += f.InFlight
		t.Waiting += f.Waiting
		t.Queued += f.Queue.Pending + f.Queue.Scheduled
		t.Running += f.Queue.Running
		t.Dead += f.Queue.Dead
		if o := f.Queue.Oldest; o != nil && (t.Oldest == nil || o.Before(*t.Oldest)) {
			t.Oldest = o
		}
		if f.P99 > t.P99 {
			t.P99, t.P99Function = f.P99, f.ref().String()
		}
		if f.P50 > 0 {
			ran = append(ran, f)
		}
	}
	t.RPS = round(t.RPS, 100)
	t.P50 = weightedMedian(ran)
}

// weightedMedian is the functions' p50 below which lies half of their rate.
func weightedMedian(ran []Function) float64 {
	slices.SortFunc(ran, func(a, b Function) int { return cmp.Compare(a.P50, b.P50) })
	weight := func(f Function) float64 { return max(f.RPS, 0.01) }
	var half, sum float64
	for _, f := range ran {
		half += weight(f) / 2
	}
	for _, f := range ran {
		if sum += weight(f); sum >= half {
			return f.P50
		}
	}
	return 0
}

func (f Function) ref() functions.Ref { return functions.Ref{Namespace: f.Namespace, Name: f.Function} }

func (c counts) errorShare() float64 {
	if c.requests == 0 {
		return 0
	}
	return round(min(1, float64(c.errors)/float64(c.requests)), 10000)
}

func startTime(p functions.Phases) float64 {
	if p.Ready == 0 {
		return 0
	}
	return millis(p.Place + p.Prepare + p.Create + p.Start + p.Ready)
}

func millis(d functions.Duration) float64 { return round(d.Std().Seconds()*1000, 1000) }
