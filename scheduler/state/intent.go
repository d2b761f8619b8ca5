package state

import "github.com/tatami-faas/tatami/functions"

// SetNode records what an operator wants of a node, whether it was heard of or not.
func (s *State) SetNode(set functions.NodeSettings) {
	s.settings[set.Node] = set
	s.want(set.Node, set)
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
	n.Settings = set
	n.restrict()
	s.place(n)
}

// restrict says what the operator's and the worker's wishes mean for placement.
func (n *Node) restrict() {
	n.Cordoned = n.Settings.Intent == functions.NodeCordoned
	n.Draining = n.Report.Draining || n.Drained()
}

// Drained reports whether the operator wants the node's instances to leave.
func (n *Node) Drained() bool { return n.Settings.Intent == functions.NodeDrained }
