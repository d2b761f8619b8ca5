package functions

import "github.com/tatami-faas/tatami/internal/fault"

// NodeIntent is what an operator wants of a node.
type NodeIntent string

// The intents.
const (
	// NodeOpen takes instances.
	NodeOpen NodeIntent = "open"
	// NodeCordoned takes no further instance; those on it stay.
	NodeCordoned NodeIntent = "cordoned"
	// NodeDrained takes no further instance, and those on it leave: replacements first where they are needed.
	NodeDrained NodeIntent = "drained"
	// NodeRemoved is no node any more: its worker was shut out for good, and its instances count as gone. It cannot be taken back.
	NodeRemoved NodeIntent = "removed"
)

// LabelMember is the label with which a worker names the member of a pool that it runs as, such as a Nomad allocation.
const LabelMember = "pool-member"

// NodeSettings is what is stored of a node: everything else about it is its worker's to report.
type NodeSettings struct {
	Schema int        `json:"schema"`
	Node   NodeID     `json:"node"`
	Intent NodeIntent `json:"intent"`
	// Reason is why, in the operator's words.
	Reason string `json:"reason,omitempty"`
}

// maxNodeReason bounds a reason, in bytes.
const maxNodeReason = 512

// Validate reports whether the node is a node's id, the intent one that can be taken back and the reason short enough.
func (n NodeSettings) Validate() error {
	if !n.Node.Valid() {
		return fault.New(fault.CodeInvalidRequest, "node: %q is no node's id", n.Node).WithField("node")
	}
	switch n.Intent {
	case NodeOpen, NodeCordoned, NodeDrained:
	default:
		return fault.New(fault.CodeInvalidRequest, "intent: %q is none of %s, %s and %s", n.Intent, NodeOpen, NodeCordoned, NodeDrained).WithField("intent")
	}
	if len(n.Reason) > maxNodeReason {
		return fault.New(fault.CodeInvalidRequest, "reason: it has %d bytes, %d are allowed", len(n.Reason), maxNodeReason).WithField("reason")
	}
	return nil
}
