package functions

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Filter says which events a trigger takes: exactly one of its fields is set. Exact, Prefix and Suffix compare attributes by name, and all that
// are named must fit; an event without the attribute does not fit.
type Filter struct {
	Exact  map[string]string `json:"exact,omitempty"`
	Prefix map[string]string `json:"prefix,omitempty"`
	Suffix map[string]string `json:"suffix,omitempty"`
	// All takes what every one of the filters takes, Any what one does, Not what the filter does not.
	All []Filter `json:"all,omitempty"`
	Any []Filter `json:"any,omitempty"`
	Not *Filter  `json:"not,omitempty"`
}

// Bounds of the filters of one trigger.
const (
	maxFilters     = 100
	maxFilterDepth = 8
)

// Matches reports whether the filter takes the event. The filter must be valid.
func (f *Filter) Matches(e *Event) bool {
	switch {
	case len(f.Exact) > 0:
		return attributesFit(e, f.Exact, func(v, want string) bool { return v == want })
	case len(f.Prefix) > 0:
		return attributesFit(e, f.Prefix, strings.HasPrefix)
	case len(f.Suffix) > 0:
		return attributesFit(e, f.Suffix, strings.HasSuffix)
	case len(f.All) > 0:
		return MatchesAll(f.All, e)
	case len(f.Any) > 0:
		return slices.ContainsFunc(f.Any, func(one Filter) bool { return one.Matches(e) })
	case f.Not != nil:
		return !f.Not.Matches(e)
	}
	return false
}

// MatchesAll reports whether every filter takes the event; none takes every event.
func MatchesAll(filters []Filter, e *Event) bool {
	for i := range filters {
		if !filters[i].Matches(e) {
			return false
		}
	}
	return true
}

func attributesFit(e *Event, want map[string]string, fit func(v, want string) bool) bool {
	for name, w := range want {
		if v, ok := e.Attribute(name); !ok || !fit(v, w) {
			return false
		}
	}
	return true
}

// filterProblem returns what is wrong with the filters of a trigger, with the place named; nil where nothing is.
func filterProblem(filters []Filter) *fault.Error {
	left := maxFilters
	return filtersProblem("filters", filters, maxFilterDepth, &left)
}

func filtersProblem(at string, filters []Filter, depth int, left *int) *fault.Error {
	for i := range filters {
		if p := filters[i].problem(fmt.Sprintf("%s[%d]", at, i), depth, left); p != nil {
			return p
		}
	}
	return nil
}

func (f *Filter) problem(at string, depth int, left *int) *fault.Error {
	if *left--; *left < 0 {
		return badTrigger(at, "a trigger has at most %d filters", maxFilters)
	}
	if depth == 0 {
		return badTrigger(at, "filters lie within one another at most %d deep", maxFilterDepth)
	}
	set := 0
	for _, is := range []bool{len(f.Exact) > 0, len(f.Prefix) > 0, len(f.Suffix) > 0, len(f.All) > 0, len(f.Any) > 0, f.Not != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return badTrigger(at, "it must have exactly one of exact, prefix, suffix, all, any and not; it has %d", set)
	}
	for kind, want := range map[string]map[string]string{"exact": f.Exact, "prefix": f.Prefix, "suffix": f.Suffix} {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if !IsAttributeName(name) {
				return badTrigger(at+"."+kind+"."+name, "%.80q is no name of an attribute", name)
			}
			if v := want[name]; v == "" || len(v) > MaxAttribute {
				return badTrigger(at+"."+kind+"."+name, "a value has 1 to %d bytes", MaxAttribute)
			}
		}
	}
	if p := filtersProblem(at+".all", f.All, depth-1, left); p != nil {
		return p
	}
	if p := filtersProblem(at+".any", f.Any, depth-1, left); p != nil {
		return p
	}
	if f.Not != nil {
		return f.Not.problem(at+".not", depth-1, left)
	}
	return nil
}
