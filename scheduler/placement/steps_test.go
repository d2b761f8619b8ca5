package placement

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

var (
	steps  = flag.Int("steps", 60_000, "random steps of TestRandomSteps")
	seeded = flag.Uint64("seed", 0, "what is added to the seeds of TestRandomSteps")
)

// walk takes random steps with an engine and its model side by side.
type walk struct {
	rng    *rand.Rand
	engine *Engine
	model  *model
	terms  []*Affinity
	// ids are the nodes, in no order; next numbers the one that joins next.
	ids  []functions.NodeID
	next int
	kind variety
	most int
	// every is how often a choice is compared with a full scan.
	every int
	// least is what every request asks for at least.
	least   functions.Resources
	choices uint64
	// stale are reservations that ended, some of them.
	stale   [64]Reservation
	refused [3]int
}

func newWalk(seed uint64, nodes, every int, kind variety) *walk {
	w := &walk{rng: rand.New(rand.NewPCG(seed, seed)), engine: NewEngine(), model: newModel(), kind: kind, most: nodes, every: every}
	for _, t := range someTerms {
		w.terms = append(w.terms, w.engine.Affinity(t...))
	}
	for range nodes {
		w.join()
	}
	return w
}

func (w *walk) join() {
	n := &modelNode{Node: randomNode(w.rng, w.next, w.kind)}
	w.next++
	n.ref = w.engine.SetNode(&n.Node)
	w.model.nodes[n.ID] = n
	w.ids = append(w.ids, n.ID)
	if w.kind != alike {
		return
	}
	// Little is left of each: they crowd in few cells.
	n.aside = functions.Resources{CPU: n.Allocatable.CPU - w.rng.Int64N(2500), Memory: n.Allocatable.Memory - w.rng.Int64N(4*functions.GiB)}
	w.engine.SetAside(n.ref, n.aside)
}

func (w *walk) anyNode() *modelNode { return w.model.nodes[w.ids[w.rng.IntN(len(w.ids))]] }

// step does one thing, and says what is wrong with the outcome.
func (w *walk) step(i int) error {
	// The nodes fill up in turn, and empty again.
	place := 640
	if i/(150*w.most)%2 == 1 {
		place = 380
	}
	switch x := w.rng.IntN(1000); {
	case x < place:
		return w.place(i)
	case x < 970:
		return w.finish()
	case x < 977:
		w.change()
	case x < 980:
		w.aside()
	case x < 990:
		w.artifact()
	case x < 994:
		w.quota()
	case x < 996 && len(w.ids) > w.most/2:
		w.fail()
	case len(w.ids) < w.most:
		w.join()
	}
	return nil
}

func (w *walk) place(i int) error {
	r := randomRequest(w.rng, w.terms, w.model.live, w.model.nodes)
	r.Resources.CPU, r.Resources.Memory = max(r.Resources.CPU, w.least.CPU), max(r.Resources.Memory, w.least.Memory)
	compare := i%w.every == 0
	refused := w.model.refuses(r.Namespace, demand(&r))
	var want functions.NodeID
	var cost int64
	if compare {
		want, cost = w.model.choose(&r)
	}
	c := w.engine.Reserve(&r)
	w.choices = w.choices*31 + uint64(c.Node)<<32 + uint64(c.Reservation)
	if c.Quota != refused {
		return fmt.Errorf("refused by %+v, want %+v for %+v", c.Quota, refused, r)
	}
	switch {
	case c.Placed():
		w.refused[0]++
	case c.Quota.Name != "":
		w.refused[1]++
	default:
		w.refused[2]++
	}
	if compare && (c.ID != want || c.Placed() && w.engine.q.cost != cost) {
		return fmt.Errorf("chose %q at %d, a full scan %q at %d, for %+v", c.ID, w.engine.q.cost, want, cost, r)
	}
	if !c.Placed() {
		return nil
	}
	n := w.model.nodes[c.ID]
	if _, ok := costOf(n, &r); !ok {
		return fmt.Errorf("%s does not take %+v: %+v", c.ID, r, n.Node)
	}
	if w.rng.IntN(4) == 0 {
		w.engine.Hold(c.Node, r.Digest)
		w.model.hold(c.ID, r.Digest)
	}
	p := placed{handle: c.Reservation, node: c.ID, req: r}
	p.req.Peers, p.req.Near, p.req.Apart = nil, nil, nil
	w.model.live = append(w.model.live, p)
	w.model.add(p, 1)
	if refused := w.model.refuses(r.Namespace, functions.Resources{}); refused != (Bound{}) {
		return fmt.Errorf("%s: a quota is broken: %+v", r.Namespace, refused)
	}
	if w.engine.Reserved(c.Node) != n.Reserved || !n.Reserved.Fits(n.Allocatable) {
		return fmt.Errorf("%s: %v reserved of %v, the ledger has %v", c.ID, w.engine.Reserved(c.Node), n.Allocatable, n.Reserved)
	}
	return nil
}

func (w *walk) finish() error {
	if len(w.model.live) == 0 {
		return nil
	}
	i := w.rng.IntN(len(w.model.live))
	p := w.model.live[i]
	last := len(w.model.live) - 1
	w.model.live[i] = w.model.live[last]
	w.model.live = w.model.live[:last]
	w.model.add(p, -1)
	if !w.engine.Release(p.handle) {
		return fmt.Errorf("a live reservation on %s cannot be released", p.node)
	}
	old := &w.stale[w.rng.IntN(len(w.stale))]
	if w.engine.Release(p.handle) || w.engine.Release(*old) {
		return fmt.Errorf("a reservation on %s, or one before it, was released twice", p.node)
	}
	*old = p.handle
	return nil
}

// change opens, closes, drains or resizes a node. Its capacity only grows: what shrinks below what is reserved is no decision.
func (w *walk) change() {
	n := w.anyNode()
	switch w.rng.IntN(5) {
	case 0:
		n.Cordoned = !n.Cordoned
	case 1:
		n.Draining = !n.Draining
	case 2:
		n.Known = true
	case 3:
		n.Allocatable = n.Allocatable.Add(functions.Resources{CPU: w.rng.Int64N(10), Memory: w.rng.Int64N(functions.MiB), Instances: 1})
	case 4:
		if n.Labels, n.Zone = someLabels[w.rng.IntN(4)], someZones[w.rng.IntN(4)]; w.kind == alike {
			n.Labels, n.Zone = nil, ""
		}
	}
	given := n.Node
	given.Artifacts = map[string]struct{}{}
	for d, homes := range w.model.homes {
		if slices.Contains(homes, n.ID) {
			given.Artifacts[d] = struct{}{}
		}
	}
	w.engine.SetNode(&given)
}

// aside keeps room on a node, more than there is of it at times, or gives back what was kept.
func (w *walk) aside() {
	n := w.anyNode()
	if w.kind == alike {
		return
	}
	d := functions.Resources{}.Sub(n.aside)
	if n.aside == (functions.Resources{}) {
		d = functions.Resources{CPU: w.rng.Int64N(8000), Memory: w.rng.Int64N(16 * functions.GiB), Instances: 1}
	}
	n.aside = n.aside.Add(d)
	w.engine.SetAside(n.ref, d)
}

func (w *walk) artifact() {
	n, d := w.anyNode(), fmt.Sprint("d", w.rng.IntN(40))
	if w.rng.IntN(2) == 0 {
		w.engine.Hold(n.ref, d)
		w.model.hold(n.ID, d)
		return
	}
	w.engine.Drop(n.ref, d)
	w.model.drop(n.ID, d)
}

// quota sets or removes a namespace's quota, the defaults or the total. A bound may come to lie just above, but not below, what is in use.
func (w *walk) quota() {
	name := fmt.Sprint("team", w.rng.IntN(6))
	used := w.model.used[name]
	switch w.rng.IntN(6) {
	case 0:
		name, used = functions.QuotaDefaults, functions.Resources{}
		for _, u := range w.model.used {
			used = functions.Resources{CPU: max(used.CPU, u.CPU), Memory: max(used.Memory, u.Memory), Instances: max(used.Instances, u.Instances)}
		}
	case 1:
		name, used = functions.QuotaTotal, w.model.total()
	}
	// What a namespace holds may lie beyond the defaults once its own quota is gone: those go with it.
	if w.rng.IntN(2) == 0 {
		for _, gone := range []string{name, functions.QuotaDefaults} {
			w.engine.DeleteQuota(gone)
			delete(w.model.quotas, gone)
		}
		return
	}
	most := int64(w.most)
	some := func(v int64) int64 {
		switch w.rng.IntN(8) {
		case 0:
			return 0
		case 1:
			return functions.Unbounded
		}
		return v
	}
	q := functions.Quota{
		Namespace: name, CPU: some(used.CPU + 1 + w.rng.Int64N(5000*most)), Memory: some(used.Memory + 1 + w.rng.Int64N(8*functions.GiB*most)),
		Instances: some(used.Instances + 1 + w.rng.Int64N(5*most)),
	}
	if d := w.model.quotas[functions.QuotaDefaults]; q.Over(d).Exceeded(used, functions.Resources{}) != "" {
		return
	}
	w.engine.SetQuota(q)
	w.model.quotas[name] = q
}

// fail loses a node with all that is on it.
func (w *walk) fail() {
	i := w.rng.IntN(len(w.ids))
	id := w.ids[i]
	w.ids[i] = w.ids[len(w.ids)-1]
	w.ids = w.ids[:len(w.ids)-1]
	w.model.live = slices.DeleteFunc(w.model.live, func(p placed) bool {
		if p.node == id {
			w.model.add(p, -1)
		}
		return p.node == id
	})
	for d := range w.model.homes {
		w.model.drop(id, d)
	}
	w.engine.RemoveNode(w.model.nodes[id].ref)
	delete(w.model.nodes, id)
}

// TestRandomSteps places, finishes, fails, drains, joins and changes quotas at random: nothing is overcommitted, no quota broken, nothing placed
// twice, every choice compared is that of a full scan, and the same seed gives the same choices again.
func TestRandomSteps(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		nodes, every int
		kind         variety
		share        float64
	}{
		{24, 1, kinds, 0.1},
		{60, 1, odd, 0.1},
		{150, 2, alike, 0.15},
		{400, 40, kinds, 0.3},
		{300, 40, odd, 0.35},
	} {
		t.Run(fmt.Sprintf("nodes=%d,%s", tc.nodes, tc.kind), func(t *testing.T) {
			t.Parallel()
			n := int(float64(*steps) * tc.share)
			seed := uint64(tc.nodes) + *seeded
			begun := time.Now()
			first := run(t, newWalk(seed, tc.nodes, tc.every, tc.kind), n)
			if again := run(t, newWalk(seed, tc.nodes, tc.every, tc.kind), n); again != first {
				t.Errorf("the same seed gave %x, then %x", first, again)
			}
			t.Logf("%d steps twice in %s: no overcommit, no quota breach, no double placement; replay %x", n, time.Since(begun).Round(time.Millisecond), first)
		})
	}
}

func run(t *testing.T, w *walk, n int) uint64 {
	t.Helper()
	for i := range n {
		if err := w.step(i); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if i%100_000 == 0 || i == n-1 {
			if err := w.model.check(w.engine); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if err := w.engine.checkIndex(); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	h := fnv.New64a()
	fmt.Fprint(h, w.choices, w.refused)
	for _, id := range sortedIDs(w.model.nodes) {
		fmt.Fprint(h, id, w.model.nodes[id].Reserved)
	}
	t.Logf("%d placed, %d refused by quotas, %d without room; %d live on %d nodes in %d classes", w.refused[0], w.refused[1], w.refused[2], len(w.model.live), len(w.ids), len(w.engine.byKey))
	return h.Sum64()
}
