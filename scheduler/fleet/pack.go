package fleet

import (
	"cmp"
	"slices"

	"github.com/tatami-faas/tatami/functions"
)

// mostPacked bounds how many instances are packed one by one; a pool that is that short of room grows in several steps.
const mostPacked = 10_000

// missing says how many workers more are needed for what lacks room, and how many instances are larger than a worker. While no worker was ever
// seen one is wanted, to learn what it offers.
func (d *decider) missing() (more, large int) {
	shape := d.memory.Shape
	bins := d.bins()
	if shape == (functions.Resources{}) {
		return max(0, 1-len(bins)), 0
	}
	lacking := slices.Clone(d.view.Lacking)
	slices.SortStableFunc(lacking, func(a, b Lack) int { return cmp.Compare(share(b.Each, shape), share(a.Each, shape)) })
	there, packed := len(bins), 0
	for _, l := range lacking {
		if !l.Each.Fits(shape) && !anyFits(bins, l.Each) {
			large += l.Count
			continue
		}
		for range l.Count {
			if packed++; packed > mostPacked || len(bins)-there > d.view.Max {
				return len(bins) - there, large
			}
			if i := slices.IndexFunc(bins, func(free functions.Resources) bool { return l.Each.Fits(free) }); i >= 0 {
				bins[i] = bins[i].Sub(l.Each)
				continue
			}
			if !l.Each.Fits(shape) {
				large++
				continue
			}
			bins = append(bins, shape.Sub(l.Each))
		}
	}
	return len(bins) - there, large
}

// bins are what the workers have free: those that are open, those that come, and those that the pool was told to have and has not begun to start.
func (d *decider) bins() []functions.Resources {
	v, m := d.view, d.memory
	var out []functions.Resources
	for i := range v.Workers {
		switch w := &v.Workers[i]; {
		case w.Node == "" && d.coming(w.Since):
			out = append(out, m.Shape)
		case w.Node != "" && w.Open:
			out = append(out, w.Allocatable.Sub(w.Reserved))
		}
	}
	if d.coming(m.Changed) {
		for range v.Count - len(v.Workers) {
			out = append(out, m.Shape)
		}
	}
	return out
}

func anyFits(bins []functions.Resources, need functions.Resources) bool {
	return slices.ContainsFunc(bins, func(free functions.Resources) bool { return need.Fits(free) })
}

// share is the largest part of a worker that an instance takes, in any dimension.
func share(r, of functions.Resources) float64 {
	part := func(n, of int64) float64 {
		if of <= 0 {
			return 0
		}
		return float64(n) / float64(of)
	}
	return max(part(r.CPU, of.CPU), part(r.Memory, of.Memory), part(r.Instances, of.Instances))
}
