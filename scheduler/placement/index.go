package placement

import (
	"math"
	"math/bits"

	"github.com/tatami-faas/tatami/functions"
)

// The index of a class is a grid of free CPU by free memory, with a bitmap of rows and one of columns a row that lead to the cells that have
// nodes. Its levels are half an octave wide, and the last has all that is more: narrower ones give more rows and cells to look at than they spare nodes.
// So wide are the classes too that are not exact.
const (
	levelBits = 1
	classBits = 1
	levels    = 64
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
	lacks                      features
	cpu, memory                int64
}

// class indexes the nodes of one kind that take instances.
type class struct {
	// What most searches read is in the first cache line, what those read that look into cells in the second.
	rows uint64
	// perCPU and perMemory are how much a node may have free for a cost, the most of all nodes: they bound, so they need not shrink.
	perCPU, perMemory float64
	cols              *[levels]uint64
	key               classKey

	// most is what a free millicore and byte weigh at most among the nodes, least what they weigh at least.
	most  weight
	cells []entry
	width int
	// uniform says that all nodes weigh alike: a node's rank by what it has free is its rank by score, whatever the request.
	uniform      bool
	largestSlots int32
	// members counts the nodes of the class, open those of them that take instances if there is room.
	members, open int32
	// largest is the largest capacity of a node, by dimension.
	largestCPU, largestMemory int64
	least                     weight
	_                         [32]byte
}

// newClass returns an empty class for nodes up to a capacity.
func newClass(key classKey, cpu, memory int64) class {
	height, width := cpuLevel(cpu)+1, memoryLevel(memory)+1
	return class{key: key, least: weight{one, one}, width: width, cols: new([levels]uint64), cells: make([]entry, height*width)}
}

func (c *class) admit(w weight, open bool, all functions.Resources) {
	c.members++
	if open {
		c.open++
	}
	c.least = weight{min(c.least.cpu, w.cpu), min(c.least.memory, w.memory)}
	c.most = weight{max(c.most.cpu, w.cpu), max(c.most.memory, w.memory)}
	c.perCPU, c.perMemory = perCost(c.least.cpu), perCost(c.least.memory)
	c.largestCPU, c.largestMemory = max(c.largestCPU, all.CPU), max(c.largestMemory, all.Memory)
	c.largestSlots = max(c.largestSlots, slots(all.Instances))
	c.uniform = c.least == c.most
}

// node is what decisions read of a node again and again: what it has free, and its place in the index. So small is it that those of 10,000 nodes stay
// in a core's own cache.
type node struct {
	cpu, memory int64
	slots       int32
	// count is of the reservations.
	count int32
	// class is negative for a node that is not there.
	class int32
	// row and col are of the cell that an indexed node is in.
	row, col uint8
	standing standing
	open     bool
}

// standing says whether a node is in the index.
type standing uint8

// A node is out that takes nothing. It is parked where it has less than anybody asked for yet: most nodes of a full site are, and come and go between
// requests without the index being told.
const (
	out standing = iota
	parked
	indexed
)

// nowhere is no node.
func nowhere() node { return node{class: -1} }

func (n *node) joined() bool { return n.class >= 0 }

// weight is what a free millicore and a free byte of a node count, by its capacity.
type weight struct{ cpu, memory int64 }

// perCost is how much may be free for a cost where so much weighs so much. What weighs nothing may all be free.
func perCost(weight int64) float64 { return 1 / max(float64(weight), 2) }

// within is what may be free at most, of which so much is asked for, for no more than a cost. It rounds up, for a search looks no further.
func within(asked, cost int64, per float64) int64 { return asked + int64(float64(cost)*per) + 1 }

func (c *class) cpuWithin(q *query) int64    { return within(q.cpu, q.cost, c.perCPU) }
func (c *class) memoryWithin(q *query) int64 { return within(q.memory, q.cost, c.perMemory) }

// from returns the first bits of a bitmap that are set at or after a level.
func from(bitmap uint64, level int) uint64 { return bitmap >> (level & 63) << (level & 63) }

// upTo returns the bits up to a level.
func upTo(level int) uint64 { return math.MaxUint64 >> (63 - level&63) }

// of is the share of a node that so much of it is.
func (w weight) of(cpu, memory int64) int64 { return cpu*w.cpu + memory*w.memory }

// weightOf has both dimensions weigh the same.
func weightOf(all functions.Resources) weight {
	switch {
	case all.CPU > 0 && all.Memory > 0:
		return weight{one / 2 / all.CPU, one / 2 / all.Memory}
	case all.CPU > 0:
		return weight{one / all.CPU, 0}
	case all.Memory > 0:
		return weight{0, one / all.Memory}
	}
	return weight{}
}

// cost is the share of a node that stays free with so much taken. Where all nodes of a class weigh alike, the class is at hand.
func (e *Engine) cost(i int32, cpu, memory int64) int64 {
	n := &e.nodes[i]
	c := &e.classes[n.class]
	w := &c.most
	if !c.uniform {
		w = &e.weights[i]
	}
	return w.of(n.cpu-cpu, n.memory-memory)
}

// entryOf is what leads to a node.
func (e *Engine) entryOf(i int32) entry {
	n := &e.nodes[i]
	x := entry{coarse(e.cost(i, 0, 0)), roomOf(n.cpu, n.memory)}
	x.of = i
	return x
}

// enter puts a node into its class's index, unless it takes nothing or nobody asks for so little.
func (e *Engine) enter(i int32) {
	n := &e.nodes[i]
	if !n.open || n.cpu < 0 || n.memory < 0 || n.slots <= 0 {
		return
	}
	row, col := cpuLevel(n.cpu), memoryLevel(n.memory)
	if row < e.leastRow || col < e.leastCol {
		n.standing = parked
		return
	}
	c := &e.classes[n.class]
	n.row, n.col, n.standing = uint8(row), uint8(col), indexed
	c.cols[row] |= 1 << col
	c.rows |= 1 << row
	e.insert(&c.cells[row*c.width+col], e.entryOf(i))
}

// expect has all nodes in the index that may take what is of a level, which is less than anybody asked for yet. That happens at most once a level.
func (e *Engine) expect(row, col int) {
	e.leastRow, e.leastCol = min(e.leastRow, row), min(e.leastCol, col)
	for i := range e.nodes {
		if e.nodes[i].standing == parked {
			e.enter(int32(i))
		}
	}
}

// leave takes a node out of its class's index. What it has free must not have changed since it entered.
func (e *Engine) leave(i int32) {
	n := &e.nodes[i]
	was := n.standing
	n.standing = out
	if was != indexed {
		return
	}
	c := &e.classes[n.class]
	row, col := int(n.row), int(n.col)
	n.row, n.col = 0, 0
	cell, gone := &c.cells[row*c.width+col], e.entryOf(i)
	e.remove(cell, &gone)
	if cell.of != 0 {
		return
	}
	if c.cols[row] &^= 1 << col; c.cols[row] == 0 {
		c.rows &^= 1 << row
	}
}
