package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is everything around the core: it carries out effects at once, in virtual time.
type world struct {
	t     *testing.T
	now   time.Time
	core  *reconcile.Reconciler
	ids   int
	out   strings.Builder
	nodes map[functions.NodeID]*worldNode
	fns   map[functions.Ref]functions.Function
	revs  map[functions.RevisionID]functions.Revision
	// deaf drops commands, held holds changes of records back.
	deaf, held bool
	cfg        reconcile.Config
	// still keeps nodes from reporting by themselves.
	still     bool
	demandSeq uint64
	beaten    time.Time
}

type worldNode struct {
	id     functions.NodeID
	boot   int
	seq    uint64
	silent bool
	// lost says that the core gave it up once.
	lost  bool
	state bus.NodeState
	last  time.Time
	heard time.Time
	insts map[functions.InstanceID]*bus.InstanceReport
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: epoch, nodes: map[functions.NodeID]*worldNode{}, fns: map[functions.Ref]functions.Function{}, revs: map[functions.RevisionID]functions.Revision{}}
	w.restart()
	return w
}

func (w *world) restart() {
	w.core = reconcile.New(w.cfg, func() functions.InstanceID {
		w.ids++
		return functions.InstanceID(fmt.Sprintf("ins_%d", w.ids))
	})
}

func (w *world) say(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

// do carries out effects. What follows from them is done after the current input.
func (w *world) do(effects []reconcile.Effect) {
	for _, e := range slices.Clone(effects) {
		switch e.Kind {
		case reconcile.Send:
			w.obey(e.Command)
		case reconcile.AskReports:
			w.say("ask for reports")
		case reconcile.Tell:
			w.say("tell: %s", e.Reason)
		default:
			w.record(e)
		}
	}
}

func (w *world) record(e reconcile.Effect) {
	kind := map[reconcile.Kind]string{
		reconcile.Promote: "promote", reconcile.Fail: "fail", reconcile.MarkReady: "mark ready", reconcile.Withdraw: "withdraw",
	}[e.Kind]
	w.say("%s %s %s%s", kind, e.Ref, e.Revision, reason(e.Reason))
	if w.held {
		return
	}
	rev, fn := w.revs[e.Revision], w.fns[e.Ref]
	switch e.Kind {
	case reconcile.Promote:
		rev.State = functions.RevisionReady
		fn.Previous, fn.Live, fn.Candidate = fn.Live, e.Revision, ""
	case reconcile.Fail:
		rev.State, rev.Reason = functions.RevisionFailed, e.Reason
		fn.Candidate = ""
	case reconcile.MarkReady:
		rev.State = functions.RevisionReady
	case reconcile.Withdraw:
		fn.Candidate = ""
	}
	w.revs[e.Revision], w.fns[e.Ref] = rev, fn
	w.do(w.core.SetRevision(w.now, rev))
	w.do(w.core.SetFunction(w.now, fn))
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func (w *world) obey(c bus.Command) {
	n := w.nodes[c.Node]
	id := c.Instance
	if c.Action == bus.ActionPrepare {
		return
	}
	w.say("%s %s on %s%s", c.Action, id, n.state.Name, reason(c.Reason))
	if w.deaf {
		return
	}
	in := n.insts[id]
	switch c.Action {
	case bus.ActionReport:
		if in != nil {
			w.delta(n, *in)
		}
	case bus.ActionStart:
		if in != nil {
			return
		}
		r := c.Revision
		n.insts[id] = &bus.InstanceReport{
			Instance: id, Namespace: r.Namespace, Function: r.Function, Revision: r.ID, State: functions.InstanceStarting,
			Since: w.now, Started: w.now, Slots: r.Config.Concurrency, Reserved: r.Config.Limits.Resources(),
		}
		w.delta(n, *n.insts[id])
	case bus.ActionStop:
		if in == nil || in.Held > 0 {
			return
		}
		w.end(n, in, functions.InstanceStopped, "", nil)
	case bus.ActionDrain:
		if in == nil {
			return
		}
		if in.Held == 0 {
			w.end(n, in, functions.InstanceStopped, "", nil)
			return
		}
		in.State = functions.InstanceDraining
		w.delta(n, *in)
	}
}

func (w *world) end(n *worldNode, in *bus.InstanceReport, st functions.InstanceState, why string, exit *functions.Exit) {
	delete(n.insts, in.Instance)
	last := *in
	last.State, last.Reason, last.Exit = st, why, exit
	if st == functions.InstanceFailed {
		last.Logs = []string{"last words"}
	}
	w.delta(n, last)
}

func (w *world) report(n *worldNode, full bool, list ...bus.InstanceReport) {
	if n.silent {
		return
	}
	n.seq++
	n.heard = w.now
	r := bus.Report{Envelope: bus.Envelope{Schema: 1, Boot: fmt.Sprint(n.boot), Node: n.id, Sequence: n.seq}, Full: full, State: n.state, Instances: list}
	if full {
		n.last = w.now
	}
	w.do(w.core.Report(w.now, r))
}

func (w *world) delta(n *worldNode, in bus.InstanceReport) { w.report(n, false, in) }

func (w *world) full(n *worldNode) {
	var list []bus.InstanceReport
	for _, id := range slices.Sorted(maps.Keys(n.insts)) {
		list = append(list, *n.insts[id])
	}
	w.report(n, true, list...)
}

// pass lets time go by in steps of 100 ms; nodes report every two seconds and are heard of twice in each, and the core ticks as the scheduler would.
func (w *world) pass(d time.Duration) {
	const step = 100 * time.Millisecond
	idle := time.Duration(0)
	for range d / step {
		w.now = w.now.Add(step)
		if w.now.Sub(w.beaten) >= bus.BeatEvery {
			w.beaten = w.now
			w.do(w.core.Beat(w.now))
		}
		for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
			n := w.nodes[id]
			if !n.silent && !w.still && w.now.Sub(n.last) >= 2*time.Second {
				w.full(n)
			} else if !n.silent && w.now.Sub(n.heard) >= time.Second/2 {
				w.report(n, false)
			}
			known := w.core.State().Nodes[id]
			n.lost = n.lost || known != nil && known.Lost
		}
		next := w.core.Next()
		if idle += step; w.core.Busy() || idle >= time.Second {
			idle = 0
			w.do(w.core.Tick(w.now))
		} else if !next.IsZero() && !w.now.Before(next) {
			w.do(w.core.Due(w.now))
		}
	}
}
