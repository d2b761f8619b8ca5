package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// affinity prepares what a function wants of nodes' labels; nil where it wants nothing.
func (s *State) affinity(p functions.Placement) *placement.Affinity {
	var terms []placement.Term
	add := func(labels map[string]string, like placement.Term) {
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			values := strings.Split(labels[key], ",")
			for i := range values {
				values[i] = strings.TrimSpace(values[i])
			}
			t := like
			t.Key, t.Value, t.Or = key, values[0], values[1:]
			terms = append(terms, t)
		}
	}
	add(p.Require, placement.Term{})
	add(p.Avoid, placement.Term{Not: true})
	add(p.Prefer, placement.Term{Preferred: true})
	if len(terms) == 0 {
		return nil
	}
	return s.engine.Affinity(terms...)
}

func spreadOf(p functions.Placement) placement.Spread {
	switch p.Spread {
	case functions.SpreadZone:
		// Within a zone the nodes matter too: two instances on one node fail together.
		return placement.SpreadZones | placement.SpreadNodes
	case functions.SpreadNode:
		return placement.SpreadNodes
	}
	return 0
}
