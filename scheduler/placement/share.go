package placement

import "github.com/tatami-faas/tatami/functions"

// Level is what a namespace holds of all open nodes, CPU or memory, whichever is the greater share, by its weight: the namespace with the lowest
// level is next where room is short. It follows from what is held now, so nobody saves up turns while idle, and what ended is no longer counted.
// A namespace of the default weight that holds everything is at 1.
func (e *Engine) Level(name string) float64 {
	s := &e.namespaces[e.byName[name]]
	return e.Share(s.used) * functions.DefaultWeight / float64(max(s.quota.Weight, 1))
}

// Share is the part of all open nodes that an amount takes, of CPU or memory, whichever is greater.
func (e *Engine) Share(d functions.Resources) float64 {
	return max(part(d.CPU, e.capacity.CPU), part(d.Memory, e.capacity.Memory))
}

func part(of, whole int64) float64 {
	if of <= 0 {
		return 0
	}
	return float64(of) / float64(max(whole, 1))
}

// SetAside keeps so much more of a node from being given away, or gives it back where the amount is negative. It is nobody's reservation and may
// exceed what is free; it ends with the node.
func (e *Engine) SetAside(r NodeRef, amount functions.Resources) {
	if !e.valid(r) {
		return
	}
	e.about[r].aside = e.about[r].aside.Add(amount)
	e.take(int32(r), amount)
}
