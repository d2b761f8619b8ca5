package state

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// label is one that functions of a namespace have.
type label struct{ namespace, key, value string }

// relabel has a function found by the labels of its live revision, or of its candidate where none is live.
func (s *State) relabel(f *Function) {
	var labels map[string]string
	if f.Record != nil {
		if r := f.Revision(cmp.Or(f.Record.Live, f.Record.Candidate)); r != nil {
			labels = r.Record.Config.Labels
		}
	}
	before := s.labels[f.Ref]
	if maps.Equal(before, labels) {
		return
	}
	for key, value := range before {
		l := label{f.Namespace, key, value}
		if at, found := s.labelled(l, f.Ref); found {
			if s.byLabel[l] = slices.Delete(s.byLabel[l], at, at+1); len(s.byLabel[l]) == 0 {
				delete(s.byLabel, l)
			}
		}
	}
	for key, value := range labels {
		l := label{f.Namespace, key, value}
		at, _ := s.labelled(l, f.Ref)
		s.byLabel[l] = slices.Insert(s.byLabel[l], at, f.Ref)
	}
	if s.labels[f.Ref] = labels; len(labels) == 0 {
		delete(s.labels, f.Ref)
	}
}

// labelled finds where a function is, or would be, among those with a label.
func (s *State) labelled(l label, r functions.Ref) (int, bool) {
	return slices.BinarySearchFunc(s.byLabel[l], r, func(a, b functions.Ref) int { return cmp.Compare(a.Name, b.Name) })
}

// meant adds the nodes of what functions of f's namespace a selector names: by name one, by label all others.
func (s *State) meant(to []placement.NodeRef, f *Function, selector string) []placement.NodeRef {
	key, value, byLabel := functions.FunctionLabel(selector)
	if !byLabel {
		return s.hosts(to, s.Functions[functions.Ref{Namespace: f.Namespace, Name: selector}])
	}
	for _, r := range s.byLabel[label{f.Namespace, key, value}] {
		if r != f.Ref {
			to = s.hosts(to, s.Functions[r])
		}
	}
	return to
}
