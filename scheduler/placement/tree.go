package placement

import (
	"math"
	"slices"
)

// entry leads to a node, to a page of entries, or to nothing: a cell of the index is one, and so is what a page holds. It says of what it leads to
// about the least free share and the most of each resource, so that what cannot be chosen is passed over unread, and so coarsely that many entries share
// a cache line; a node says exactly what it has free.
type entry struct {
	// free is the sum of the free shares, by freeBits.
	free uint32
	room
}

// room is how much there may be of each resource, as a level of so many steps an octave that few nodes are read in vain.
type room struct {
	cpu, memory uint16
	// of is a node; a page where negative.
	of int32
}

const (
	// freeBits is how many bits of a free share an entry leaves out.
	freeBits = 29
	// roomBits is the steps an octave of a room, as a power of two: so many that the levels of all values are numbers of 16 bits.
	roomBits = 10
)

// roomOf is the room of resources that are not negative: what is no more of each never has a larger one.
func roomOf(cpu, memory int64) room {
	return room{cpu: uint16(level(cpu, roomBits)), memory: uint16(level(memory, roomBits))}
}

// coarse is what an entry says of a free share.
func coarse(free int64) uint32 { return uint32(min(free>>freeBits, math.MaxUint32)) }

// least is what is free at least of what the entry leads to.
func (x *entry) least() int64 { return int64(x.free) << freeBits }

// holds reports whether all of another may fit.
func (r *room) holds(other *room) bool { return r.cpu >= other.cpu && r.memory >= other.memory }

// widen makes room for what another leads to.
func (r *room) widen(by *room) { r.cpu, r.memory = max(r.cpu, by.cpu), max(r.memory, by.memory) }

// A page has up to pageEntries entries, so that it fills two cache lines, and no fewer than pageFew unless it is a root. Two become one where that
// leaves room for a few more. So few pages are deeper than pagesDeep that there are never so many nodes.
const (
	pageEntries = 10
	pageFew     = 3
	pageJoined  = 8
	pagesDeep   = 16
)

// page is a part of a cell's tree: its entries, tightest first, then by node id. All pages of a depth are as far from the nodes.
type page struct {
	count   int32
	entries [pageEntries]entry
	_       [4]byte
}

func (p *page) leads() bool { return p.entries[0].of < 0 }

func (p *page) all() []entry { return p.entries[:p.count] }

func (p *page) insert(at int, x entry) {
	copy(p.entries[at+1:], p.entries[at:p.count])
	p.entries[at] = x
	p.count++
}

func (p *page) remove(at int) {
	p.count--
	copy(p.entries[at:p.count], p.entries[at+1:])
}

// carry takes over the last entries of another page, from one on, before its own.
func (p *page) carry(from *page, at int) {
	n := int(from.count) - at
	copy(p.entries[n:], p.all())
	copy(p.entries[:n], from.entries[at:])
	p.count, from.count = p.count+int32(n), int32(at)
}

// sum is the entry that leads to the page.
func (p *page) sum(of int32) entry {
	s := p.entries[0]
	for i := range p.all() {
		s.widen(&p.entries[i].room)
	}
	s.of = of
	return s
}

func (e *Engine) pageOf(of int32) *page { return &e.pages[-of] }

// newPage returns what leads to an empty page. There must be room for the page, for others are pointed to.
func (e *Engine) newPage() (of int32, p *page) {
	if last := len(e.noPages) - 1; last >= 0 {
		of, e.noPages = e.noPages[last], e.noPages[:last]
	} else {
		of = -int32(len(e.pages))
		e.pages = append(e.pages, page{})
	}
	p = e.pageOf(of)
	p.count = 0
	return of, p
}

// pair returns an entry for a page with two entries.
func (e *Engine) pair(x, y entry) entry {
	of, p := e.newPage()
	p.insert(0, x)
	p.insert(1, y)
	return p.sum(of)
}

// first is the node that an entry leads to before all others.
func (e *Engine) first(of int32) int32 {
	for of < 0 {
		of = e.pageOf(of).entries[0].of
	}
	return of
}

// after reports whether a node comes after another one, or is it, where entries do not tell.
func (e *Engine) after(i, other int32) bool {
	if i == other {
		return true
	}
	a, b := e.cost(i, 0, 0), e.cost(other, 0, 0)
	return a > b || a == b && e.order[i] > e.order[other]
}

// behind counts the entries of a page that begin before a node or with it.
func (e *Engine) behind(p *page, n *entry) int {
	at := 0
	for at < int(p.count) && p.entries[at].free < n.free {
		at++
	}
	for at < int(p.count) && p.entries[at].free == n.free && e.after(n.of, e.first(p.entries[at].of)) {
		at++
	}
	return at
}

// insert puts a node's entry beneath a root.
func (e *Engine) insert(root *entry, n entry) {
	switch {
	case root.of == 0:
		*root = n
	case root.of > 0:
		e.pages = slices.Grow(e.pages, 1)
		if n.free < root.free || n.free == root.free && !e.after(n.of, root.of) {
			*root = e.pair(n, *root)
		} else {
			*root = e.pair(*root, n)
		}
	default:
		e.pages = slices.Grow(e.pages, pagesDeep)
		x := *root
		if more, parted := e.add(&x, &n); parted {
			x = e.pair(x, more)
		}
		*root = x
	}
}

// add puts a node's entry beneath one that leads to a page. Where the page was full it is parted, and what follows is returned.
func (e *Engine) add(x, n *entry) (more entry, parted bool) {
	p := e.pageOf(x.of)
	at := e.behind(p, n)
	put := *n
	if p.leads() {
		at = max(at, 1)
		more, parted := e.add(&p.entries[at-1], n)
		if !parted {
			x.free = p.entries[0].free
			x.widen(&n.room)
			return entry{}, false
		}
		put = more
	}
	if p.count == pageEntries {
		return e.part(x, at, put), true
	}
	p.insert(at, put)
	x.free = p.entries[0].free
	x.widen(&n.room)
	return entry{}, false
}

// part puts an entry into a full page, and returns one for the upper half, which gets a page of its own.
func (e *Engine) part(x *entry, at int, put entry) entry {
	const half = (pageEntries + 1) / 2
	p := e.pageOf(x.of)
	of, q := e.newPage()
	q.carry(p, half)
	if at <= half {
		p.insert(at, put)
	} else {
		q.insert(at-half, put)
	}
	*x = p.sum(x.of)
	return q.sum(of)
}

// remove takes a node's entry from beneath a root that leads to it.
func (e *Engine) remove(root *entry, n *entry) {
	if root.of > 0 {
		*root = entry{}
		return
	}
	e.cut(root, n)
	if p := e.pageOf(root.of); p.count == 1 {
		e.noPages = append(e.noPages, root.of)
		*root = p.entries[0]
	}
}

// cut takes a node's entry from beneath one that leads to a page.
func (e *Engine) cut(x, n *entry) {
	p := e.pageOf(x.of)
	at := e.behind(p, n) - 1
	if p.leads() {
		e.cut(&p.entries[at], n)
		e.fill(p, at)
	} else {
		p.remove(at)
	}
	// Unless the node was the largest, what is largest stays.
	if n.cpu == x.cpu || n.memory == x.memory {
		*x = p.sum(x.of)
	}
	x.free = p.entries[0].free
}

// fill makes up for few entries in one of a page's pages: it joins its neighbour, or they share what they have.
func (e *Engine) fill(p *page, at int) {
	if e.pageOf(p.entries[at].of).count >= pageFew {
		return
	}
	if at+1 == int(p.count) {
		at--
	}
	x, y := p.entries[at].of, p.entries[at+1].of
	a, b := e.pageOf(x), e.pageOf(y)
	if a.count+b.count <= pageJoined {
		b.carry(a, 0)
		p.entries[at+1] = b.sum(y)
		p.remove(at)
		e.noPages = append(e.noPages, x)
		return
	}
	half := int(a.count+b.count) / 2
	for int(a.count) < half {
		a.insert(int(a.count), b.entries[0])
		b.remove(0)
	}
	if int(a.count) > half {
		b.carry(a, half)
	}
	p.entries[at], p.entries[at+1] = a.sum(x), b.sum(y)
}
