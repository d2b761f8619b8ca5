package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// TestScripts plays scenarios against the pure core, with workers and a store that act as commanded. Goldens: go test ./scheduler -run Scripts -rewrite.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, w.run)
	})
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	w.t = t
	w.out.Reset()
	a := args{t: t, d: d}
	switch d.Cmd {
	case "open":
		w.do(w.core.Synced(w.now))
		w.pass(a.dur("after", 300*time.Millisecond))
	case "tidy":
		w.cfg = reconcile.Config{Compact: true, CompactAfter: a.dur("after", 0)}
		w.restart()
	case "node":
		w.node(a)
	case "quota":
		q := functions.Quota{Namespace: a.str("ns", "default"), CPU: a.num("cpu", 0), Memory: a.num("mem", 0) * functions.MiB, Instances: a.num("instances", 0), Weight: a.num("weight", 0)}
		if a.num("gone", 0) == 1 {
			w.do(w.core.DeleteQuota(w.now, q.Namespace))
			break
		}
		w.do(w.core.SetQuota(w.now, q))
	case "deploy":
		w.deploy(a)
	case "live":
		ref := a.ref()
		fn := w.fns[ref]
		fn.Previous, fn.Live, fn.Candidate = fn.Live, functions.RevisionID(a.str("rev", "")), ""
		w.fns[ref] = fn
		w.do(w.core.SetFunction(w.now, fn))
	case "delete":
		delete(w.fns, a.ref())
		w.do(w.core.DeleteFunction(w.now, a.ref()))
	case "demand":
		w.demand(d)
	case "ready", "fail", "crash", "held", "ended":
		w.instance(a)
	case "pass":
		w.pass(a.dur("for", 0))
	case "world":
		w.held, w.deaf, w.still = a.num("hold", 0) == 1, a.num("deaf", 0) == 1, a.num("still", 0) == 1
	case "restart":
		w.restart()
		for _, ref := range sortedRefs(w.fns) {
			w.do(w.core.SetFunction(w.now, w.fns[ref]))
		}
		for _, id := range slices.Sorted(maps.Keys(w.revs)) {
			w.do(w.core.SetRevision(w.now, w.revs[id]))
		}
	case "show":
		w.show()
	case "compact":
		p := compact(w.core.State(), int(a.num("nodes", 1)))
		for _, n := range p.Nodes {
			w.say("give back %s: %s", n.Name, n.Reserved)
		}
		for _, m := range p.Moves {
			w.say("  %s of %s from %s to %s", m.Instance, m.Function, m.From, m.To)
		}
	case "explain":
		w.explain(a)
	default:
		t.Fatalf("unknown command %q", d.Cmd)
	}
	if w.out.Len() == 0 {
		return "-\n"
	}
	return w.out.String()
}

func sortedRefs(m map[functions.Ref]functions.Function) []functions.Ref {
	return slices.SortedFunc(maps.Keys(m), func(a, b functions.Ref) int { return strings.Compare(a.String(), b.String()) })
}

// labels reads key:value pairs with semicolons between them, and a plus between the values of one.
func (a args) labels(name string) map[string]string {
	s := a.str(name, "")
	if s == "" {
		return nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		k, v, _ := strings.Cut(pair, ":")
		out[k] = strings.ReplaceAll(v, "+", ",")
	}
	return out
}

// names reads names, and labels as key:value, with a plus between them.
func (a args) names(name string) []string {
	if s := a.str(name, ""); s != "" {
		return strings.Split(strings.ReplaceAll(s, ":", "="), "+")
	}
	return nil
}

func (w *world) node(a args) {
	name := a.d.CmdArgs[0].Key
	id := functions.NodeID("nod_" + name)
	n := w.nodes[id]
	if n == nil {
		n = &worldNode{id: id, insts: map[functions.InstanceID]*bus.InstanceReport{}, boot: 1}
		n.state = bus.NodeState{Name: name, Architecture: "amd64", Allocatable: functions.Resources{CPU: 4000, Memory: 4 * functions.GiB, Instances: 100}}
		w.nodes[id] = n
	}
	al := &n.state.Allocatable
	al.CPU, al.Memory, al.Instances = a.num("cpu", al.CPU), a.num("mem", al.Memory/functions.MiB)*functions.MiB, a.num("slots", al.Instances)
	n.state.Architecture = a.str("arch", n.state.Architecture)
	n.state.Draining = a.num("draining", 0) == 1
	if labels := a.labels("labels"); labels != nil {
		n.state.Labels = labels
	}
	if lacks := a.labels("lacks"); lacks != nil {
		n.state.Lacks = map[functions.Feature]string{}
		for f, why := range lacks {
			n.state.Lacks[functions.Feature(f)] = why
		}
	}
	if has := a.str("has", ""); has != "" {
		n.state.Artifacts = []string{has}
	}
	if a.num("reboot", 0) == 1 {
		n.boot++
		n.seq = 0
		clear(n.insts)
	}
	n.silent = a.num("silent", 0) == 1
	if want := functions.NodeIntent(a.str("want", "")); want == functions.NodeOpen {
		w.do(w.core.DeleteNode(w.now, id))
	} else if want != "" {
		w.do(w.core.SetNode(w.now, functions.NodeSettings{Node: id, Intent: want, Reason: a.str("why", "")}))
	}
	if !n.silent {
		w.full(n)
	}
}

func (w *world) deploy(a args) {
	ref := a.ref()
	id := functions.RevisionID(a.str("rev", "r1"))
	rev, known := w.revs[id]
	if !known {
		rev = functions.Revision{Schema: 1, ID: id, Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionPending}
		rev.Artifact = functions.Artifact{Digest: a.str("digest", "d-"+string(id)), Architecture: a.str("arch", "amd64")}
		rev.Config.Limits = functions.Limits{CPU: a.num("cpu", 250), Memory: a.num("mem", 64) * functions.MiB, Ephemeral: 64 * functions.MiB}
		rev.Config.Concurrency = int(a.num("conc", 10))
		rev.Config.Scale = functions.Scale{Min: int(a.num("min", 0)), Max: int(a.num("max", 100)), KeepAlive: functions.Duration(a.dur("keep", time.Minute)),
			Initial: int(a.num("initial", 0)), Reserved: int(a.num("reserved", 0)), Burst: int(a.num("burst", 0)), Utilization: int(a.num("util", 0)),
			Window: functions.Duration(a.dur("window", 0)), DownDelay: functions.Duration(a.dur("delay", 0))}
		rev.Config.Placement = functions.Placement{Spread: a.str("spread", ""), Require: a.labels("require"), Avoid: a.labels("avoid"), Prefer: a.labels("prefer"), Near: a.names("near"), Apart: a.names("apart")}
		rev.Config.Labels = a.labels("labels")
		rev.Config.Sandbox, rev.Config.Egress = a.str("sandbox", ""), a.str("egress", "")
	} else if rev.State == functions.RevisionFailed {
		rev.State = functions.RevisionPending
	}
	fn, known := w.fns[ref]
	if !known {
		fn = functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name}
	}
	fn.Candidate = id
	w.revs[id], w.fns[ref] = rev, fn
	w.do(w.core.SetRevision(w.now, rev))
	w.do(w.core.SetFunction(w.now, fn))
}

// demand reads lines "name waiting=1 backlog=2 inflight=3 mean=4".
func (w *world) demand(d *datadriven.TestData) {
	w.demandSeq++
	m := bus.Demand{Envelope: bus.Envelope{Schema: 1, Boot: "g", Sequence: w.demandSeq}, Gateway: args{w.t, d}.str("gw", "g1")}
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		ref, err := functions.ParseRef(words[0])
		if err != nil {
			w.t.Fatal(err)
		}
		fd := bus.FunctionDemand{Namespace: ref.Namespace, Function: ref.Name}
		mean := -1
		for _, kv := range words[1:] {
			k, v, _ := strings.Cut(kv, "=")
			if k == "quiet" {
				quiet, err := time.ParseDuration(v)
				if err != nil {
					w.t.Fatal(err)
				}
				fd.Quiet = functions.Duration(quiet)
				continue
			}
			n, err := strconv.Atoi(v)
			if err != nil {
				w.t.Fatal(err)
			}
			switch k {
			case "waiting":
				fd.Waiting = n
			case "backlog":
				fd.Backlog = n
			case "inflight":
				fd.InFlight = n
			case "mean":
				mean = n
			}
		}
		if fd.Concurrency = float64(mean); mean < 0 {
			fd.Concurrency = float64(fd.Waiting + fd.InFlight)
		}
		m.Functions = append(m.Functions, fd)
	}
	for range max(1, int(argDur(w.t, d, "for", 0)/time.Second)) {
		w.demandSeq++
		m.Sequence = w.demandSeq
		w.do(w.core.Demand(w.now, m))
		if argDur(w.t, d, "for", 0) > 0 {
			w.pass(time.Second)
		}
	}
}

func (w *world) instance(a args) {
	for _, arg := range a.d.CmdArgs {
		if len(arg.Vals) > 0 {
			continue
		}
		for _, nid := range slices.Sorted(maps.Keys(w.nodes)) {
			n := w.nodes[nid]
			for _, id := range slices.Sorted(maps.Keys(n.insts)) {
				in := n.insts[id]
				if arg.Key != "all" && arg.Key != string(id) {
					continue
				}
				w.change(a, n, in)
			}
		}
	}
}

func (w *world) change(a args, n *worldNode, in *bus.InstanceReport) {
	switch a.d.Cmd {
	case "ready":
		if in.State == functions.InstanceStarting {
			in.State, in.Since = functions.InstanceReady, w.now
			w.delta(n, *in)
		}
	case "held":
		if in.Held = int(a.num("n", 0)); in.Held == 0 {
			in.LastUsed = w.now.Add(-a.dur("ago", 0))
			if in.State == functions.InstanceDraining {
				w.end(n, in, functions.InstanceStopped, "drained", nil)
				return
			}
		}
		if a.num("untold", 0) == 0 {
			w.delta(n, *in)
		}
	case "ended":
		w.end(n, in, functions.InstanceStopped, a.str("why", ""), nil)
	case "fail":
		w.end(n, in, functions.InstanceFailed, "not ready within 30s", nil)
	case "crash":
		w.end(n, in, functions.InstanceFailed, "exited with code 1", &functions.Exit{Code: 1})
	}
}

func (w *world) show() {
	o := overview(w.now, w.core.State())
	for _, n := range o.Nodes {
		w.say("node %s: %s of %s", n.Name, n.Reserved, n.Allocatable)
		if d := n.Drain; d != nil {
			w.say("  drains: %d of %d left", d.Left, d.From)
			for _, wait := range d.Waits {
				w.say("  %s", wait)
			}
		}
	}
	for _, f := range o.Functions {
		w.say("%s: wants %d (%s), %d starting, %d ready, %d draining%s", functions.Ref{Namespace: f.Namespace, Name: f.Function}, f.Desired, f.Reason,
			f.Starting, f.Ready, f.Draining, reason(f.Pending))
	}
	for _, in := range o.Instances {
		if in.State.Gone() {
			continue
		}
		w.say("%s %s %s on %s", in.Instance, in.Revision, in.State, in.Node)
	}
	bounds := func(q *functions.Quota) string {
		return functions.Resources{CPU: q.CPU, Memory: q.Memory, Instances: q.Instances}.String()
	}
	for _, ns := range append(o.Namespaces, *o.Total) {
		if q := ns.Effective; q.CPU+q.Memory+q.Instances > 0 {
			w.say("namespace %s: %s of %s", ns.Namespace, ns.Used, bounds(q))
		}
	}
}

func (w *world) explain(a args) {
	name := a.d.CmdArgs[0].Key
	req := bus.ExplainRequest{Schema: 1, Instance: functions.InstanceID(name)}
	if !strings.HasPrefix(name, "ins_") {
		ref := a.ref()
		req = bus.ExplainRequest{Schema: 1, Function: &ref}
	}
	e := explain(w.now, w.core.State(), req)
	w.say("%s found=%t", e.Subject, e.Found)
	for _, l := range e.Lines {
		w.say("  +%s %s", l.At.Sub(epoch), l.Text)
	}
	for _, n := range e.Nodes {
		w.say("  node %s chosen=%t: %s", n.Name, n.Chosen, n.Reason)
	}
	for _, k := range e.Kinds {
		w.say("  %d × %s, %d fit: %s", k.Nodes, k.Kind, k.Fits, k.Reason)
	}
	for _, try := range e.Try {
		w.say("  try: %s", try)
	}
}

// args reads a command's arguments.
type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) ref() functions.Ref {
	r, err := functions.ParseRef(a.d.CmdArgs[0].Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

func (a args) str(key, def string) string {
	for _, arg := range a.d.CmdArgs {
		if arg.Key == key && len(arg.Vals) == 1 {
			return arg.Vals[0]
		}
	}
	return def
}

func (a args) num(key string, def int64) int64 {
	s := a.str(key, "")
	if s == "" {
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

func (a args) dur(key string, def time.Duration) time.Duration { return argDur(a.t, a.d, key, def) }

func argDur(t *testing.T, d *datadriven.TestData, key string, def time.Duration) time.Duration {
	s := args{t, d}.str(key, "")
	if s == "" {
		return def
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
