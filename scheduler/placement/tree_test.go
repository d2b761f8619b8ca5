package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/tatami-faas/tatami/functions"
)

// wellFormed says what is wrong with a cell's tree, and returns its nodes in their order.
func (e *Engine) wellFormed(root entry) (nodes []int32, err error) {
	var depths []int
	var walk func(x entry, depth int) error
	walk = func(x entry, depth int) error {
		if x.of > 0 {
			if depths = append(depths, depth); x != e.entryOf(x.of) {
				return fmt.Errorf("node %d: its entry says %+v, it has %+v", x.of, x, e.entryOf(x.of))
			}
			nodes = append(nodes, x.of)
			return nil
		}
		p := e.pageOf(x.of)
		if p.count < 2 || depth > 0 && p.count < pageFew || p.count > pageEntries {
			return fmt.Errorf("a page at depth %d has %d entries", depth, p.count)
		}
		if sum := p.sum(x.of); x != sum {
			return fmt.Errorf("a page at depth %d is led to by %+v and sums up to %+v", depth, x, sum)
		}
		for i := range p.count {
			if err := walk(p.entries[i], depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if root.of == 0 {
		return nil, nil
	}
	if err := walk(root, 0); err != nil {
		return nil, err
	}
	if slices.Min(depths) != slices.Max(depths) {
		return nil, fmt.Errorf("nodes are %d to %d pages deep", slices.Min(depths), slices.Max(depths))
	}
	before := func(a, b int32) int {
		if x, y := e.cost(a, 0, 0), e.cost(b, 0, 0); x != y {
			return int(min(max(x-y, -1), 1))
		}
		return int(min(max(e.order[a]-e.order[b], -1), 1))
	}
	if !slices.IsSortedFunc(nodes, before) {
		return nil, fmt.Errorf("nodes are out of order: %v", nodes)
	}
	return nodes, nil
}

// checkIndex says what is wrong with the index: a tree, a bitmap, a node that is missing or is there twice, a page that is lost.
func (e *Engine) checkIndex() error {
	seen := map[int32]bool{}
	for _, k := range e.ranked {
		c := &e.classes[k]
		for at, cell := range c.cells {
			row, col := at/c.width, at%c.width
			if there := c.rows>>row&1 == 1 && c.cols[row]>>col&1 == 1; there != (cell.of != 0) {
				return fmt.Errorf("cell %d, %d: the bitmaps say %t", row, col, there)
			}
			nodes, err := e.wellFormed(cell)
			if err != nil {
				return fmt.Errorf("cell %d, %d: %w", row, col, err)
			}
			for _, i := range nodes {
				if r := e.nodes[i]; seen[i] || r.standing != indexed || r.class != k || int(r.row) != row || int(r.col) != col {
					return fmt.Errorf("node %d is in cell %d, %d of class %d: %+v, %+v", i, row, col, k, e.nodes[i], r)
				}
				seen[i] = true
			}
		}
	}
	for i := range e.nodes {
		n := &e.nodes[i]
		want := out
		if n.open && n.cpu >= 0 && n.memory >= 0 && n.slots > 0 {
			if want = indexed; cpuLevel(n.cpu) < e.leastRow || memoryLevel(n.memory) < e.leastCol {
				want = parked
			}
		}
		if n.standing != want || seen[int32(i)] != (want == indexed) {
			return fmt.Errorf("node %d has standing %d, want %d, and is in a cell: %t", i, n.standing, want, seen[int32(i)])
		}
	}
	return nil
}

// TestPages fills and empties one cell, in which many nodes are equals, and looks for what is wrong after each step.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, most := range []int{2, 16, 40, 400} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(uint64(most), 1))
			e := NewEngine()
			e.expect(0, 0)
			var ids []functions.NodeID
			deepest := 0
			for i := range 4000 {
				// It grows and shrinks by turns.
				if grow := i/(2*most)%2 == 0; len(ids) == 0 || len(ids) < most && rng.IntN(10) < 8 == grow {
					id := functions.NodeID(fmt.Sprintf("nod_%04d", rng.IntN(1_000_000)))
					if e.Ref(id) != 0 {
						continue
					}
					n := Node{ID: id, Known: true, Allocatable: functions.Resources{CPU: 16_000, Memory: 16 * functions.GiB, Instances: 10}}
					e.SetAside(e.SetNode(&n), functions.Resources{CPU: rng.Int64N(4), Memory: rng.Int64N(4), Instances: rng.Int64N(9)})
					ids = append(ids, id)
				} else {
					k := rng.IntN(len(ids))
					e.RemoveNode(e.Ref(ids[k]))
					ids[k] = ids[len(ids)-1]
					ids = ids[:len(ids)-1]
				}
				if err := e.checkIndex(); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				deepest = max(deepest, len(e.pages)-1-len(e.noPages))
			}
			for _, id := range ids {
				e.RemoveNode(e.Ref(id))
			}
			if used := len(e.pages) - 1 - len(e.noPages); used != 0 || most > 16 && deepest < most/pageEntries {
				t.Errorf("%d pages are still in use when no node is left; at most %d were", used, deepest)
			}
		})
	}
}

// TestLeastAsked asks for less and less: what was kept out of the index for having less free is chosen like any other once somebody asks for so little.
func TestLeastAsked(t *testing.T) {
	t.Parallel()
	for _, kind := range []variety{kinds, odd, alike} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWalk(5, 60, 1, kind)
			aside := 0
			for _, least := range []functions.Resources{
				{CPU: 4000, Memory: 8 * functions.GiB}, {CPU: 1500, Memory: 8 * functions.GiB}, {CPU: 1500, Memory: functions.GiB}, {CPU: 300, Memory: 600 * functions.MiB}, {},
			} {
				w.least = least
				for i := range 800 {
					if err := w.step(i); err != nil {
						t.Fatalf("at least %v, step %d: %v", least, i, err)
					}
				}
				if err := w.engine.checkIndex(); err != nil {
					t.Fatalf("at least %v: %v", least, err)
				}
				for i := range w.engine.nodes {
					if w.engine.nodes[i].standing == parked {
						aside++
					}
				}
			}
			if aside == 0 {
				t.Error("no node was ever out of the index")
			}
		})
	}
}

// What there are many of fills whole cache lines, so that none of them lies across one more than it must.
func TestWholeCacheLines(t *testing.T) {
	t.Parallel()
	const line = 64
	for name, size := range map[string]uintptr{
		"node": unsafe.Sizeof(node{}), "reservation": unsafe.Sizeof(reservation{}), "page": unsafe.Sizeof(page{}), "class": unsafe.Sizeof(class{}),
	} {
		if size%line != 0 && line%size != 0 {
			t.Errorf("a %s has %d bytes", name, size)
		}
	}
	if end := unsafe.Offsetof(class{}.key) + unsafe.Sizeof(classKey{}); end > line {
		t.Errorf("what most searches read of a class ends at byte %d", end)
	}
	if at := unsafe.Offsetof(class{}.largestCPU); at > 2*line {
		t.Errorf("what searches read of a class that look into cells ends at byte %d", at)
	}
}
