package state

import (
	"cmp"

	"github.com/tatami-faas/tatami/functions"
)

// SetNode records what an operator wants of a node, whether it was heard of or not.
func (s *State) SetNode(set functions.NodeSettings) {
	s.settings[set.Node] = set
	s.want(set.Node, set)
}

// RemoveNode records that a node is one no more: its instances are gone, and nothing that its worker says counts.
func (s *State) RemoveNode(set functions.NodeSettings) Change {
	var c Change
	s.settings[set.Node] = set
	if n := s.Nodes[set.Node]; n != nil {
		s.lose(n, "node "+n.Name+" was removed", &c)
		s.forgetNode(n)
	}
	return c
}

// DeleteNode records that nothing is wanted of a node: it takes instances.
func (s *State) DeleteNode(id functions.NodeID) {
	delete(s.settings, id)
	s.want(id, functions.NodeSettings{})
}

func (s *State) want(id functions.NodeID, set functions.NodeSettings) {
	n := s.Nodes[id]
	if n == nil {
		return
	}
	if set.Intent != functions.NodeDrained {
		n.DrainedFrom = 0
	}
	n.Settings, n.Emptying = set, ""
	n.restrict()
	s.place(n)
}

// Empty has a node's instances leave although its operator wants nothing of it, and says why; an empty reason ends that.
func (s *State) Empty(n *Node, why string) {
	if why == "" {
		n.DrainedFrom = 0
	}
	n.Emptying = why
	n.restrict()
	s.place(n)
}

// Close has a node take nothing more although its operator wants nothing of it, and says why; an empty reason ends that.
func (s *State) Close(n *Node, why string) {
	n.Closed = why
	n.restrict()
	s.place(n)
}

// restrict says what the operator's and the worker's wishes mean for placement.
func (n *Node) restrict() {
	n.Cordoned = n.Settings.Intent == functions.NodeCordoned || n.Closed != ""
	n.Draining = n.Report.Draining || n.Drained()
}

// Drained reports whether the node's instances are to leave.
func (n *Node) Drained() bool { return n.Settings.Intent == functions.NodeDrained || n.Emptying != "" }

// Intent is what is wanted of the node now, and why: its operator's wish, unless it has none and the node is being emptied or closed.
func (n *Node) Intent() (functions.NodeIntent, string) {
	if n.Emptying != "" {
		return functions.NodeDrained, n.Emptying
	}
	if intent := cmp.Or(n.Settings.Intent, functions.NodeOpen); intent != functions.NodeOpen || n.Closed == "" {
		return intent, n.Settings.Reason
	}
	return functions.NodeCordoned, n.Closed
}
