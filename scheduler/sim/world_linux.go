package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// world is the world around the scheduler.
type world struct {
	cfg    Drive
	trace  *Trace
	core   *reconcile.Reconciler
	now    time.Time
	ids    int
	events eventHeap
	pushed int
	apps   []driven
	// named are the applications by name.
	named map[string]int
	nodes map[functions.NodeID]*simNode
	order []*simNode
	at    map[functions.InstanceID]*simInstance
	// ticked and beaten are when the scheduler and the others last did what they do again and again.
	ticked, beaten time.Time
	said           uint64
	out            Result
	before         Result
	waste          float64
	slow           []float64
}

// driven is an application.
type driven struct {
	next int
	// waiting are the calls that no instance takes yet, inFlight those that run.
	waiting  []Call
	inFlight int
	// on is its instance that takes calls; nil where there is none.
	on          *simInstance
	cold, calls int
	// told says that the gateway's last statement of it was that something waits or runs.
	told bool
}

type simNode struct {
	id       functions.NodeID
	sequence uint64
	inst     map[functions.InstanceID]*simInstance
}

type simInstance struct {
	bus.InstanceReport
	node *simNode
	app  int
	// idle is since when it is ready and runs nothing.
	idle time.Time
}

// open hands in the records and lets the scheduler begin.
func (w *world) open() {
	w.addNode()
	for i := range w.trace.Apps {
		a := &w.trace.Apps[i]
		w.named[a.Name] = i
		rev := functions.Revision{Schema: functions.Schema, ID: functions.RevisionID("rev_" + a.Name), Namespace: functions.DefaultNamespace, Function: a.Name, State: functions.RevisionReady}
		rev.Config.Concurrency = perInstance
		rev.Config.Limits = functions.Limits{CPU: instanceCPU, Memory: memoryOf(a) - functions.MiB, Ephemeral: functions.MiB}
		rev.Config.Scale = functions.Scale{Max: 1, KeepAlive: functions.Duration(w.cfg.KeepAlive), KeepAliveMax: functions.Duration(w.cfg.KeepAliveMax)}
		w.do(w.core.SetRevision(w.now, rev))
		w.do(w.core.SetFunction(w.now, functions.Function{Schema: functions.Schema, Namespace: functions.DefaultNamespace, Name: a.Name, Live: rev.ID}))
	}
	w.do(w.core.Synced(w.now.Add(-time.Hour)))
	w.do(w.core.Tick(w.now))
	w.ticked, w.beaten = w.now, w.now
}

// addNode lets a node join.
func (w *world) addNode() {
	n := &simNode{id: functions.NodeID(fmt.Sprintf("node-%04d", len(w.order))), inst: map[functions.InstanceID]*simInstance{}}
	w.nodes[n.id] = n
	w.order = append(w.order, n)
	w.report(n, true)
}

func (w *world) report(n *simNode, full bool, list ...bus.InstanceReport) {
	n.sequence++
	w.do(w.core.Report(w.now, bus.Report{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "sim", Node: n.id, Sequence: n.sequence}, Full: full, Instances: list,
		State: bus.NodeState{Name: string(n.id), Allocatable: NodeSize, Capacity: NodeSize},
	}))
}

// pass lets the time go by until the next event, and does what is due before it; what is due at the same time comes first.
func (w *world) pass() {
	for {
		tick := beat
		if w.core.Busy() {
			tick = busyTick
		}
		wake, due := w.ticked.Add(tick), w.core.Next()
		if b := w.beaten.Add(beat); b.Before(wake) {
			wake = b
		}
		if !due.IsZero() && due.Before(wake) {
			wake = due
		}
		// What is done may bring an earlier event.
		if next := began.Add(w.events[0].at); wake.After(next) {
			w.now = next
			return
		}
		if wake.After(w.now) {
			w.now = wake
		}
		w.wake(tick)
	}
}

// wake does what is due now.
func (w *world) wake(tick time.Duration) {
	if w.now.Sub(w.beaten) >= beat {
		w.beaten = w.now
		for _, n := range w.order {
			w.report(n, false)
		}
		w.sayAll()
	}
	if w.now.Sub(w.ticked) < tick {
		w.do(w.core.Due(w.now))
		return
	}
	w.ticked = w.now
	w.do(w.core.Tick(w.now))
}

// do carries effects out.
func (w *world) do(effects []reconcile.Effect) {
	for _, e := range slices.Clone(effects) {
		switch e.Kind {
		case reconcile.Send:
			w.obey(&e.Command)
		case reconcile.AskReports:
			for _, n := range w.order {
				w.reportAll(n)
			}
		}
	}
}

// reportAll tells all that is on a node.
func (w *world) reportAll(n *simNode) {
	list := make([]bus.InstanceReport, 0, len(n.inst))
	for _, in := range n.inst {
		list = append(list, in.InstanceReport)
	}
	slices.SortFunc(list, func(a, b bus.InstanceReport) int { return cmp.Compare(a.Instance, b.Instance) })
	w.report(n, true, list...)
}

func (w *world) obey(c *bus.Command) {
	in := w.at[c.Instance]
	switch {
	case c.Action == bus.ActionReport && in != nil:
		w.report(in.node, false, in.InstanceReport)
	case c.Action == bus.ActionReport:
		w.reportAll(w.nodes[c.Node])
	case c.Action == bus.ActionStart && in == nil:
		w.start(c)
	case c.Action != bus.ActionStart && in != nil && in.Held == 0 && in.State == functions.InstanceReady:
		w.stop(in)
	}
}

// memoryOf is what an instance of the application holds: a node at most.
func memoryOf(a *App) int64 { return min(max(a.Memory, 2*functions.MiB), NodeSize.Memory) }

// start makes an instance on the node of the command.
func (w *world) start(c *bus.Command) {
	rev := c.Revision
	app := w.named[rev.Function]
	in := &simInstance{node: w.nodes[c.Node], app: app}
	in.InstanceReport = bus.InstanceReport{
		Instance: c.Instance, Namespace: rev.Namespace, Function: rev.Function, Revision: rev.ID, State: functions.InstanceStarting,
		Since: w.now, Started: w.now, Slots: perInstance, Reserved: rev.Config.Limits.Resources(),
	}
	in.node.inst[in.Instance], w.at[in.Instance] = in, in
	if len(w.apps[app].waiting) == 0 {
		w.out.Ahead++
	}
	w.out.MostNodes = max(w.out.MostNodes, w.used())
	if w.used() == len(w.order) {
		w.addNode()
	}
	w.report(in.node, false, in.InstanceReport)
	if w.cfg.Start <= 0 {
		w.ready(in)
		return
	}
	w.push(event{at: w.now.Add(w.cfg.Start).Sub(began), kind: started, inst: in})
}

// used counts the nodes that hold something.
func (w *world) used() int {
	n := 0
	for _, node := range w.order {
		if len(node.inst) > 0 {
			n++
		}
	}
	return n
}

// ready lets an instance take the calls that wait.
func (w *world) ready(in *simInstance) {
	a := &w.apps[in.app]
	in.State, in.Since, in.idle = functions.InstanceReady, w.now, w.now
	a.on = in
	if len(a.waiting) == 0 {
		w.report(in.node, false, in.InstanceReport)
		return
	}
	for _, c := range a.waiting {
		waited := w.now.Sub(began) - ms(c.At)
		if waited > 0 {
			w.slow = append(w.slow, 1+float64(waited)/float64(ms(max(c.Run, 1))))
		}
		w.begin(in, c)
	}
	a.waiting = a.waiting[:0]
	w.say(in.app, false)
}

// begin runs a call on an instance.
func (w *world) begin(in *simInstance, c Call) {
	a := &w.apps[in.app]
	a.inFlight++
	if in.Held++; in.Held == 1 {
		w.idled(in)
		w.report(in.node, false, in.InstanceReport)
	}
	w.push(event{at: w.now.Sub(began) + ms(c.Run), kind: ended, app: in.app})
}

// idled counts what an instance held while it was idle, until now.
func (w *world) idled(in *simInstance) {
	w.waste += float64(memoryOf(&w.trace.Apps[in.app])) * float64(w.now.Sub(in.idle).Milliseconds())
}

// stop ends an instance that does nothing.
func (w *world) stop(in *simInstance) {
	w.idled(in)
	delete(in.node.inst, in.Instance)
	delete(w.at, in.Instance)
	if a := &w.apps[in.app]; a.on == in {
		a.on = nil
	}
	last := in.InstanceReport
	last.State = functions.InstanceStopped
	w.report(in.node, false, last)
}

func (w *world) handle(e event) {
	switch e.kind {
	case started:
		w.ready(e.inst)
	case ended:
		w.finish(e.app)
	case hourly:
		w.hour(e.at)
	case arrival:
		w.arrive(e.app)
	}
}

// arrive takes an application's next call.
func (w *world) arrive(app int) {
	a, calls := &w.apps[app], w.trace.Apps[app].Calls
	c := calls[a.next]
	if a.next++; a.next < len(calls) {
		w.push(event{at: ms(calls[a.next].At), kind: arrival, app: app})
	}
	a.calls++
	w.out.Invocations++
	if a.on != nil {
		if w.begin(a.on, c); a.inFlight == 1 {
			w.say(app, false)
		}
		return
	}
	if a.waiting = append(a.waiting, c); len(a.waiting) == 1 {
		a.cold++
		w.out.Cold++
		w.say(app, false)
	}
}

// finish ends a call.
func (w *world) finish(app int) {
	a := &w.apps[app]
	a.inFlight--
	if a.on.Held--; a.on.Held == 0 {
		a.on.idle, a.on.LastUsed = w.now, w.now
		w.report(a.on.node, false, a.on.InstanceReport)
		w.say(app, true)
	}
}

// demandOf is what the gateway states of an application; over says that its last call has just ended.
func (w *world) demandOf(app int, over bool) bus.FunctionDemand {
	a := &w.apps[app]
	d := bus.FunctionDemand{Namespace: functions.DefaultNamespace, Function: w.trace.Apps[app].Name, Waiting: len(a.waiting), InFlight: a.inFlight}
	d.Concurrency = float64(d.Waiting + d.InFlight)
	if over {
		d.Concurrency = 1
	}
	a.told = d.Waiting+d.InFlight > 0
	return d
}

// say states one application's load at once.
func (w *world) say(app int, over bool) {
	w.demand(bus.Demand{Partial: true, Functions: []bus.FunctionDemand{w.demandOf(app, over)}})
}

// sayAll states the load of all that are in use.
func (w *world) sayAll() {
	var d bus.Demand
	for app := range w.apps {
		if a := &w.apps[app]; a.told || len(a.waiting)+a.inFlight > 0 {
			d.Functions = append(d.Functions, w.demandOf(app, false))
		}
	}
	w.demand(d)
}

func (w *world) demand(d bus.Demand) {
	w.said++
	d.Gateway, d.Envelope = "sim", bus.Envelope{Schema: bus.Schema, Boot: "sim", Sequence: w.said}
	w.do(w.core.Demand(w.now, d))
}

func (w *world) hour(at time.Duration) {
	p := Point{Hour: int(math.Ceil(at.Hours())), Cold: w.out.Cold - w.before.Cold, Invocations: w.out.Invocations - w.before.Invocations, Nodes: w.used()}
	for i := range w.apps {
		if in := w.apps[i].on; in != nil {
			memory := float64(memoryOf(&w.trace.Apps[i])) / float64(functions.GiB)
			if p.Held += memory; in.Held == 0 {
				p.Idle += memory
			}
		}
	}
	w.before = w.out
	w.out.Series = append(w.out.Series, p)
}

func (w *world) end() *Result {
	w.now = began.Add(w.trace.Length)
	for i := range w.apps {
		if in := w.apps[i].on; in != nil && in.Held == 0 {
			w.idled(in)
		}
	}
	w.out.conclude(len(w.apps), func(i int) (cold, calls int) { return w.apps[i].cold, w.apps[i].calls }, w.waste, w.slow)
	return &w.out
}
