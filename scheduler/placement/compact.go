package placement

import (
	"cmp"
	"slices"
)

// Move carries one reservation to another node.
type Move struct {
	Reservation Reservation
	From, To    NodeRef
}

// Plan is how nodes are given back.
type Plan struct {
	// Moves are in the order in which they fit.
	Moves []Move
	// Freed are the nodes that the moves empty.
	Freed []NodeRef
}

// failuresInARow is after how many nodes that cannot be emptied planning ends: those that follow hold more.
const failuresInARow = 32

// Compact plans to empty up to limit nodes, the emptiest first, by moving what runs on them to others that run something already. Only nodes of which
// may is true are emptied; nil allows all. Nothing is changed: the plan's moves fit in their order as long as nothing else happens. Its time grows with
// what is reserved.
func (e *Engine) Compact(limit int, may func(NodeRef) bool) Plan {
	on := map[int32][]int32{}
	for k := 1; k < len(e.reservations); k++ {
		if i := e.reservations[k].node; i != 0 {
			on[i] = append(on[i], int32(k))
		}
	}
	// What is empty must stay so: it is out of the index while the plan is made.
	var out, used []int32
	for i := range e.nodes {
		switch r := &e.nodes[i]; {
		case !r.joined():
		case e.nodes[i].count == 0:
			e.leave(int32(i))
			out = append(out, int32(i))
		case r.open:
			used = append(used, int32(i))
		}
	}
	slices.SortFunc(used, func(a, b int32) int {
		return cmp.Or(cmp.Compare(e.cost(b, 0, 0), e.cost(a, 0, 0)), cmp.Compare(e.order[a], e.order[b]))
	})
	var plan Plan
	received := map[int32]bool{}
	for failed := 0; len(used) > 0 && failed < failuresInARow && len(plan.Freed) < limit; used = used[1:] {
		i := used[0]
		if received[i] || may != nil && !may(NodeRef(i)) {
			continue
		}
		e.leave(i)
		moves := e.empty(i, on[i])
		if moves == nil {
			e.enter(i)
			failed++
			continue
		}
		failed = 0
		out = append(out, i)
		plan.Freed, plan.Moves = append(plan.Freed, NodeRef(i)), append(plan.Moves, moves...)
		for _, m := range moves {
			received[int32(m.To)] = true
		}
	}
	for _, m := range slices.Backward(plan.Moves) {
		e.move(int32(uint32(m.Reservation)), int32(m.From))
	}
	for _, i := range out {
		e.leave(i)
		e.enter(i)
	}
	return plan
}

// Vacate reports whether everything on a node would fit on other open nodes, empty ones among them. Nothing is changed. Its time grows with what is
// reserved.
func (e *Engine) Vacate(ref NodeRef) bool {
	if !e.valid(ref) {
		return false
	}
	i := int32(ref)
	var held []int32
	for k := 1; k < len(e.reservations); k++ {
		if e.reservations[k].node == i {
			held = append(held, int32(k))
		}
	}
	e.leave(i)
	moves := e.empty(i, held)
	for _, m := range slices.Backward(moves) {
		e.move(int32(uint32(m.Reservation)), i)
	}
	e.leave(i)
	e.enter(i)
	return moves != nil
}

// empty moves all of a node's reservations, the largest first, and returns the moves; it moves nothing and returns nil when one fits nowhere.
func (e *Engine) empty(i int32, held []int32) []Move {
	w := e.weights[i]
	size := func(k int32) int64 {
		v := &e.reservations[k]
		return w.of(v.cpu, v.memory)
	}
	slices.SortFunc(held, func(a, b int32) int { return cmp.Or(cmp.Compare(size(b), size(a)), cmp.Compare(a, b)) })
	moves := make([]Move, 0, len(held))
	for _, k := range held {
		v := &e.reservations[k]
		e.ask(&Request{Resources: v.amount(), Architecture: e.architectures[v.architecture], Digest: v.digest, Affinity: v.affinity})
		e.q.needs = v.needs
		e.search()
		if e.q.best == 0 {
			for _, m := range slices.Backward(moves) {
				e.move(int32(uint32(m.Reservation)), i)
			}
			e.leave(i)
			return nil
		}
		moves = append(moves, Move{Reservation(uint64(v.generation)<<32 | uint64(k)), NodeRef(i), NodeRef(e.q.best)})
		e.move(k, e.q.best)
		e.leave(i)
	}
	return moves
}
