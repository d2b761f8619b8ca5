package placement

import (
	"math"
	"slices"
)

// entry leads to a node, to a page of entries, or to nothing: a cell of the index is one, and so is what a page holds. It says of what it leads to
// the least free share and about the most of each resource, so that what cannot be chosen is passed over unread.
type entry struct {
	// free is the sum of the free shares.
	free int64
	room
}

// room is so coarse that a page is small; a node says exactly what it has free.
type room struct {
	// cpu is in millicores, memory in grains, what is left of one counting as one. More than fits is as much as fits.
	cpu, memory uint32
	// of is a node; a page where negative.
	of int32
}

// grainBits is of how many bytes a grain is, as a power of two.
const grainBits = 16

// roomOf is the room of resources that are not negative: what is no more of each never has a larger one.
func roomOf(cpu, memory int64) room {
	grains := memory >> grainBits
	if memory&(1<<grainBits-1) != 0 {
		grains++
	}
	return room{cpu: uint32(min(cpu, math.MaxUint32)), memory: uint32(min(grains, math.MaxUint32))}
}

// holds reports whether all of another may fit.
func (r *room) holds(other *room) bool { return r.cpu >= other.cpu && r.memory >= other.memory }

// widen makes room for what another leads to.
func (r *room) widen(by *room) { r.cpu, r.memory = max(r.cpu, by.cpu), max(r.memory, by.memory) }

// A page has up to pageEntries entries, so that it fills whole cache lines, and no fewer than pageFew unless it is a root. Two become one where that
// leaves room for a few more. So few pages are deeper than pagesDeep that there are never so many nodes.
const (
	pageEntries = 12
	pageFew     = 3
	pageJoined  = 9
	pagesDeep   = 16
)

// page is a part of a cell's tree: its entries, tightest first, then by node id. All pages of a depth are as far from the nodes. Apart from the rest
// are the free shares, which are searched.
type page struct {
	free  [pageEntries]int64
	count int
	rooms [pageEntries]room
	_     [8]byte
}

func (p *page) leads() bool { return p.rooms[0].of < 0 }

func (p *page) at(i int) entry { return entry{p.free[i], p.rooms[i]} }

func (p *page) set(i int, x entry) { p.free[i], p.rooms[i] = x.free, x.room }

func (p *page) insert(at int, x entry) {
	copy(p.free[at+1:], p.free[at:p.count])
	copy(p.rooms[at+1:], p.rooms[at:p.count])
	p.set(at, x)
	p.count++
}

func (p *page) remove(at int) {
	p.count--
	copy(p.free[at:p.count], p.free[at+1:])
	copy(p.rooms[at:p.count], p.rooms[at+1:])
}

// carry takes over the last entries of another page, from one on, before its own.
func (p *page) carry(from *page, at int) {
	n := from.count - at
	copy(p.free[n:], p.free[:p.count])
	copy(p.rooms[n:], p.rooms[:p.count])
	copy(p.free[:n], from.free[at:])
	copy(p.rooms[:n], from.rooms[at:])
	p.count, from.count = p.count+n, at
}

// sum is the entry that leads to the page.
func (p *page) sum(of int32) entry {
	s := p.at(0)
	for i := 1; i < p.count; i++ {
		s.widen(&p.rooms[i])
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

// first is the order of the node that an entry leads to before all others.
func (e *Engine) first(of int32) int64 {
	for of < 0 {
		of = e.pageOf(of).rooms[0].of
	}
	return e.order[of]
}

// behind counts the entries of a page that begin before a node or with it.
func (e *Engine) behind(p *page, n *entry) int {
	at := 0
	for _, free := range p.free[:p.count] {
		if free < n.free {
			at++
		}
	}
	for at < p.count && p.free[at] == n.free && e.first(p.rooms[at].of) <= e.order[n.of] {
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
		if n.free < root.free || n.free == root.free && e.order[n.of] < e.order[root.of] {
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
		below := p.at(at - 1)
		more, parted := e.add(&below, n)
		p.set(at-1, below)
		if !parted {
			x.free = p.free[0]
			x.widen(&n.room)
			return entry{}, false
		}
		put = more
	}
	if p.count == pageEntries {
		return e.part(x, at, put), true
	}
	p.insert(at, put)
	x.free = p.free[0]
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
		*root = p.at(0)
	}
}

// cut takes a node's entry from beneath one that leads to a page.
func (e *Engine) cut(x, n *entry) {
	p := e.pageOf(x.of)
	at := e.behind(p, n) - 1
	if p.leads() {
		below := p.at(at)
		e.cut(&below, n)
		p.set(at, below)
		e.fill(p, at)
	} else {
		p.remove(at)
	}
	// Unless the node was the largest, what is largest stays.
	if n.cpu == x.cpu || n.memory == x.memory {
		*x = p.sum(x.of)
	}
	x.free = p.free[0]
}

// fill makes up for few entries in one of a page's pages: it joins its neighbour, or they share what they have.
func (e *Engine) fill(p *page, at int) {
	if e.pageOf(p.rooms[at].of).count >= pageFew {
		return
	}
	if at+1 == p.count {
		at--
	}
	x, y := p.rooms[at].of, p.rooms[at+1].of
	a, b := e.pageOf(x), e.pageOf(y)
	if a.count+b.count <= pageJoined {
		b.carry(a, 0)
		p.set(at+1, b.sum(y))
		p.remove(at)
		e.noPages = append(e.noPages, x)
		return
	}
	half := (a.count + b.count) / 2
	for a.count < half {
		a.insert(a.count, b.at(0))
		b.remove(0)
	}
	if a.count > half {
		b.carry(a, half)
	}
	p.set(at, a.sum(x))
	p.set(at+1, b.sum(y))
}
