package placement

import (
	"math/bits"

	"github.com/tatami-faas/tatami/functions"
)

// The index of a class is a grid of free CPU by free memory, with a bitmap of rows and one of columns a row that lead to the cells that have
// nodes. Its levels are half an octave wide: narrower ones give more rows and cells to look at than they spare nodes. So wide are the classes too that
// are not exact.
const (
	levelBits  = 1
	classBits  = 1
	levelWords = 2
	levels     = 64 * levelWords
	// one is the whole of a node: scores are shares of it, in whole numbers so that sums are exact and the same on every machine.
	one = 1 << 60
)

// level returns the step of a value, with as many steps an octave as the bits tell apart: monotone, and exact for small values.
func level(v int64, bitsEach int) int {
	e := max(bits.Len64(uint64(v))-bitsEach-1, 0)
	return e<<bitsEach + int(v>>e)
}

// floor returns the smallest value of a level.
func floor(level, bitsEach int) int64 {
	e := max(level>>bitsEach-1, 0)
	return int64(level-e<<bitsEach) << e
}

func cpuLevel(v int64) int    { return min(level(v, levelBits), levels-1) }
func memoryLevel(v int64) int { return min(level(v>>20, levelBits), levels-1) }

// classKey is what nodes of a class have in common. Capacities are exact while there are few, and rounded down to a level when not.
type classKey struct {
	architecture, zone, labels int32
	cpu, memory                int64
}

// class indexes the nodes of one kind that take instances.
type class struct {
	key classKey
	// uniform says that all nodes weigh alike: a node's rank by what it has free is its rank by score, whatever the request.
	uniform bool
	// The weights of a free millicore and byte, smallest and largest among the nodes. They bound, so they need not shrink.
	minCPU, maxCPU, minMemory, maxMemory int64
	// largest is the largest capacity of a node, by dimension.
	largestCPU, largestMemory int64
	largestSlots              int32

	rows  [levelWords]uint64
	cols  [][levelWords]uint64
	heads []int32
	width int
	// members counts the nodes of the class, open those of them that take instances if there is room.
	members, open int
}

// newClass returns an empty class for nodes up to a capacity.
func newClass(key classKey, cpu, memory int64) class {
	height, width := cpuLevel(cpu)+1, memoryLevel(memory)+1
	return class{
		key: key, minCPU: one, minMemory: one, width: width,
		cols: make([][levelWords]uint64, height), heads: make([]int32, height*width),
	}
}

func (c *class) admit(n *node, all functions.Resources) {
	c.members++
	if n.open {
		c.open++
	}
	c.minCPU, c.maxCPU = min(c.minCPU, n.cpuWeight), max(c.maxCPU, n.cpuWeight)
	c.minMemory, c.maxMemory = min(c.minMemory, n.memoryWeight), max(c.maxMemory, n.memoryWeight)
	c.largestCPU, c.largestMemory = max(c.largestCPU, all.CPU), max(c.largestMemory, all.Memory)
	c.largestSlots = max(c.largestSlots, slots(all.Instances))
	c.uniform = c.minCPU == c.maxCPU && c.minMemory == c.maxMemory
}

// next returns the first bit set at or after from, or -1.
func next(w *[levelWords]uint64, from int) int {
	i := from >> 6
	if i >= levelWords {
		return -1
	}
	x := w[i] &^ (1<<(from&63) - 1)
	for x == 0 {
		if i++; i == levelWords {
			return -1
		}
		x = w[i]
	}
	return i<<6 + bits.TrailingZeros64(x)
}

// node is what a decision reads of a node. The nodes of a cell form a treap by what they have free, tightest first, then by id; each knows the
// largest free CPU and memory beneath it, so that parts without room are skipped.
type node struct {
	// What a search reads is in the first cache line. free is the sum of the free shares.
	cpu, memory, free   int64
	mostCPU, mostMemory int64
	left, right         int32
	priority            uint32
	slots               int32
	labels              int32
	// peers counts the instances of the function that is being spread; zero between decisions.
	peers int32

	cpuWeight, memoryWeight int64
	// order ranks the node by its id.
	order int64
	id    functions.NodeID
	class int32
	// count is of the reservations.
	count                 int32
	indexed, open, joined bool
	// With it a node has two cache lines, and each node begins one.
	_ [8]byte
}

// rough is the cell that a node is in; zero where it takes nothing. So small are they that those of all nodes stay near.
type rough struct{ row, col uint8 }

// cost is the share of the node that stays free with the request on it, both dimensions weighing the same.
func (n *node) cost(cpu, memory int64) int64 {
	return (n.cpu-cpu)*n.cpuWeight + (n.memory-memory)*n.memoryWeight
}

// weights are what a free millicore and byte of a node count, by its capacity.
func weights(cpu, memory int64) (c, m int64) {
	switch {
	case cpu > 0 && memory > 0:
		return one / 2 / cpu, one / 2 / memory
	case cpu > 0:
		return one / cpu, 0
	case memory > 0:
		return 0, one / memory
	}
	return 0, 0
}

// enter puts a node into its class's index, unless it takes nothing.
func (e *Engine) enter(i int32) {
	n := &e.nodes[i]
	if !n.open || n.cpu < 0 || n.memory < 0 || n.slots <= 0 {
		return
	}
	c := &e.classes[n.class]
	row, col := cpuLevel(n.cpu), memoryLevel(n.memory)
	n.indexed, e.rough[i] = true, rough{uint8(row), uint8(col)}
	n.free = n.cost(0, 0)
	n.left, n.right = 0, 0
	head := &c.heads[row*c.width+col]
	if *head == 0 {
		c.cols[row][col>>6] |= 1 << (col & 63)
		c.rows[row>>6] |= 1 << (row & 63)
	}
	*head = e.insert(*head, i)
}

// leave takes a node out of its class's index. What it has free must not have changed since it entered.
func (e *Engine) leave(i int32) {
	n := &e.nodes[i]
	if !n.indexed {
		return
	}
	n.indexed = false
	c := &e.classes[n.class]
	row, col := int(e.rough[i].row), int(e.rough[i].col)
	e.rough[i] = rough{}
	head := &c.heads[row*c.width+col]
	*head = e.remove(*head, i)
	if *head != 0 {
		return
	}
	w := &c.cols[row]
	w[col>>6] &^= 1 << (col & 63)
	if *w == ([levelWords]uint64{}) {
		c.rows[row>>6] &^= 1 << (row & 63)
	}
}

func (e *Engine) before(a, b int32) bool {
	if fa, fb := e.nodes[a].free, e.nodes[b].free; fa != fb {
		return fa < fb
	}
	return e.nodes[a].order < e.nodes[b].order
}

func (e *Engine) pull(t int32) {
	n := &e.nodes[t]
	n.mostCPU, n.mostMemory = n.cpu, n.memory
	if n.left != 0 {
		l := &e.nodes[n.left]
		n.mostCPU, n.mostMemory = max(n.mostCPU, l.mostCPU), max(n.mostMemory, l.mostMemory)
	}
	if n.right != 0 {
		r := &e.nodes[n.right]
		n.mostCPU, n.mostMemory = max(n.mostCPU, r.mostCPU), max(n.mostMemory, r.mostMemory)
	}
}

func (e *Engine) insert(t, x int32) int32 {
	a := &e.nodes[x]
	if t == 0 {
		a.mostCPU, a.mostMemory = a.cpu, a.memory
		return x
	}
	n := &e.nodes[t]
	if a.priority > n.priority {
		a.left, a.right = e.split(t, x)
		e.pull(x)
		return x
	}
	n.mostCPU, n.mostMemory = max(n.mostCPU, a.cpu), max(n.mostMemory, a.memory)
	if e.before(x, t) {
		n.left = e.insert(n.left, x)
	} else {
		n.right = e.insert(n.right, x)
	}
	return t
}

// split parts a tree into what comes before x and what after.
func (e *Engine) split(t, x int32) (l, r int32) {
	if t == 0 {
		return 0, 0
	}
	n := &e.nodes[t]
	if e.before(t, x) {
		n.right, r = e.split(n.right, x)
		l = t
	} else {
		l, n.left = e.split(n.left, x)
		r = t
	}
	e.pull(t)
	return l, r
}

func (e *Engine) remove(t, x int32) int32 {
	n := &e.nodes[t]
	switch {
	case t == x:
		return e.merge(n.left, n.right)
	case e.before(x, t):
		n.left = e.remove(n.left, x)
	default:
		n.right = e.remove(n.right, x)
	}
	// Unless x may have been the largest, what is largest stays, and need not be read from both sides.
	if a := &e.nodes[x]; a.cpu == n.mostCPU && n.cpu != n.mostCPU || a.memory == n.mostMemory && n.memory != n.mostMemory {
		e.pull(t)
	}
	return t
}

// merge joins two trees, all of l before all of r.
func (e *Engine) merge(l, r int32) int32 {
	switch {
	case l == 0:
		return r
	case r == 0:
		return l
	}
	t := l
	if a, b := &e.nodes[l], &e.nodes[r]; a.priority > b.priority {
		a.right = e.merge(a.right, r)
	} else {
		t, b.left = r, e.merge(l, b.left)
	}
	e.pull(t)
	return t
}
