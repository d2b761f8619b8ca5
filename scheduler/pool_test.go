package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/fleet"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// poolWorld is a world whose nodes are the members of a pool, which does at once what it is told.
type poolWorld struct {
	*world
	pool   PoolState
	memory fleet.Memory
	policy fleet.Policy
	// made counts the members that there were, deploys the revisions.
	made, deploys int
}

func newPoolWorld(t *testing.T, count, most int) *poolWorld {
	w := &poolWorld{
		world: newWorld(t), pool: PoolState{Elastic: true, Max: most}, policy: fleet.Policy{UpAfter: time.Second, DownAfter: 20 * time.Second},
	}
	w.do(w.core.Synced(w.now))
	w.resize(count)
	w.pass(time.Second)
	return w
}

// resize adds and removes members, and their nodes with them.
func (w *poolWorld) resize(count int) {
	for i := len(w.pool.Members); i < count; i++ {
		w.made++
		name := fmt.Sprintf("m%d", w.made)
		w.pool.Members = append(w.pool.Members, Member{Name: name, Index: i, Since: w.now})
		w.addNode(functions.NodeID(name), 1024)
		for _, n := range w.nodes {
			if n.state.Name == name {
				n.state.Labels = map[string]string{functions.LabelMember: name}
				w.full(n)
			}
		}
	}
	for _, m := range w.pool.Members[count:] {
		n := w.node(m.Name)
		if len(n.insts) > 0 {
			w.t.Errorf("%s is taken away with %d instances on it", m.Name, len(n.insts))
		}
		delete(w.nodes, n.id)
	}
	w.pool.Members, w.pool.Count = w.pool.Members[:count], count
}

func (w *poolWorld) node(name string) *worldNode {
	for _, n := range w.nodes {
		if n.state.Name == name {
			return n
		}
	}
	w.t.Fatalf("there is no node %s", name)
	return nil
}

// run lets time go by as a follower of the pool would see it.
func (w *poolWorld) run(d time.Duration) {
	for range d / time.Second {
		w.pass(time.Second)
		for _, n := range w.nodes {
			for _, in := range n.insts {
				if in.State == functions.InstanceStarting {
					in.State, in.Since = functions.InstanceReady, w.now
					w.delta(n, *in)
				}
			}
		}
		dec, out := plan(w.now, w.core.State(), &w.pool, w.policy, w.memory)
		w.memory = dec.Memory
		w.do(w.core.Withdraw(w.now, out))
		if dec.Count != w.pool.Count {
			w.resize(dec.Count)
		}
	}
}

// deploy makes a function of which n instances of 300 MiB are kept.
func (w *poolWorld) deploy(n int) functions.Ref {
	ref := fnRef(0)
	id := functions.RevisionID(fmt.Sprintf("r%d", w.deploys))
	rev := functions.Revision{
		Schema: 1, ID: id, Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady,
		Config: functions.Config{Limits: functions.Limits{CPU: 10, Memory: 300 << 20, Ephemeral: 1 << 20}, Scale: functions.Scale{Min: n, KeepAlive: functions.Duration(time.Second)}}.WithDefaults(),
	}
	w.deploys++
	fn := functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name, Live: id, Revisions: []functions.RevisionID{id}}
	w.revs[id], w.fns[ref] = rev, fn
	w.do(w.core.SetRevision(w.now, rev))
	w.do(w.core.SetFunction(w.now, fn))
	return ref
}

func (w *poolWorld) ready(ref functions.Ref) (n int) {
	for _, in := range w.core.State().Functions[ref].Instances {
		if in.State.Serves() && in.Active() {
			n++
		}
	}
	return n
}

func TestThePoolGrowsAndShrinksWithDemand(t *testing.T) {
	t.Parallel()
	w := newPoolWorld(t, 0, 4)
	ref := w.deploy(8)
	w.run(20 * time.Second)
	if got := w.ready(ref); got != 8 || w.pool.Count != 3 {
		t.Fatalf("%d of 8 instances are ready on %d workers; three hold three each", got, w.pool.Count)
	}
	w.deploy(4)
	w.run(3 * time.Minute)
	if got := w.ready(ref); got != 4 || w.pool.Count != 2 {
		t.Errorf("%d of 4 instances are ready on %d workers", got, w.pool.Count)
	}
	w.deploy(0)
	w.run(3 * time.Minute)
	if w.pool.Count != 0 {
		t.Errorf("nothing runs, on %d workers", w.pool.Count)
	}
	w.deploy(100)
	w.run(30 * time.Second)
	if got := w.ready(ref); got != 12 || w.pool.Count != 4 {
		t.Errorf("%d instances are ready on %d workers; four hold twelve", got, w.pool.Count)
	}
}

// A member that the pool takes back is emptied, replacements first, and takes instances again when it stays after all.
func TestThePoolTakesAMemberBack(t *testing.T) {
	t.Parallel()
	w := newPoolWorld(t, 2, 2)
	w.policy.DownAfter = time.Hour
	ref := w.deploy(3)
	w.run(5 * time.Second)
	from := w.pool.Members[0].Name
	if len(w.node(from).insts) == 0 {
		from = w.pool.Members[1].Name
	}
	member := func() *Member {
		for i := range w.pool.Members {
			if w.pool.Members[i].Name == from {
				return &w.pool.Members[i]
			}
		}
		return nil
	}
	state := func() *bus.NodeStatus {
		for _, n := range overview(w.now, w.core.State()).Nodes {
			if n.Name == from {
				return &n
			}
		}
		t.Fatalf("%s does not show", from)
		return nil
	}
	member().Closed = "the node takes nothing"
	w.run(2 * time.Second)
	if n := state(); n.Intent != functions.NodeCordoned || n.IntentReason != member().Closed || len(w.node(from).insts) != 3 {
		t.Errorf("closed: %s, %s, %d instances", n.Intent, n.IntentReason, len(w.node(from).insts))
	}
	member().Closed, member().Leaving = "", "the node is drained"
	w.run(10 * time.Second)
	if n := state(); n.Intent != functions.NodeDrained || n.IntentReason != member().Leaving || len(w.node(from).insts) != 0 || w.ready(ref) != 3 {
		t.Errorf("leaving: %s, %s, %d instances on it, %d ready", n.Intent, n.IntentReason, len(w.node(from).insts), w.ready(ref))
	}
	member().Leaving = ""
	w.run(2 * time.Second)
	if n := state(); n.Intent != functions.NodeOpen {
		t.Errorf("it stays: %s, %s", n.Intent, n.IntentReason)
	}
}

// What an operator wants of a node goes before what the pool wants.
func TestThePoolLeavesNodesToTheirOperator(t *testing.T) {
	t.Parallel()
	w := newPoolWorld(t, 1, 1)
	id := w.node("m1").id
	w.do(w.core.SetNode(w.now, functions.NodeSettings{Schema: 1, Node: id, Intent: functions.NodeDrained, Reason: "mine"}))
	w.do(w.core.Withdraw(w.now, map[functions.NodeID]reconcile.Withdrawal{id: {Empty: true, Why: "the pool's"}}))
	w.do(w.core.Withdraw(w.now, nil))
	if intent, why := w.core.State().Nodes[id].Intent(); intent != functions.NodeDrained || why != "mine" {
		t.Errorf("%s, %s", intent, why)
	}
}

func TestAStaticPoolStaysAsItIs(t *testing.T) {
	t.Parallel()
	err := Static{}.Resize(t.Context(), PoolState{}, 2, "a test")
	if !fault.Is(err, fault.CodeUnavailable) || !strings.Contains(fault.From(err).Hint, "tatami worker --join") {
		t.Errorf("%v", err)
	}
}

// The pool is in the picture: which nodes it runs, how many there should be, and why.
func TestThePoolIsShown(t *testing.T) {
	t.Parallel()
	w := newPoolWorld(t, 2, 5)
	w.pool.Name = "Nomad job workers"
	w.addNode("alone", 1024)
	o := overview(w.now, w.core.State())
	var none *poolView
	none.show(&o)
	if o.Pool != nil {
		t.Errorf("there is a pool: %+v", o.Pool)
	}
	viewOf(w.core.State(), &w.pool, fleet.Decision{Count: 3, Reason: "1 instance lacks room"}).show(&o)
	for _, n := range o.Nodes {
		if want := map[bool]string{true: w.pool.Name}[n.Labels[functions.LabelMember] != ""]; n.Pool != want {
			t.Errorf("%s is of the pool %q, not %q", n.Name, n.Pool, want)
		}
	}
	if o.Pool.Running != 2 || o.Pool.Lacking != 0 || o.Pool.Wanted != 3 {
		t.Errorf("of the pool there are %+v", o.Pool)
	}
	if got, want := o.Pool.String(), "the pool, Nomad job workers, has 2 workers of 0 to 5 and should have 3: 1 instance lacks room"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
