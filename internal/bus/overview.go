package bus

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Overview is the scheduler's picture of the nodes and instances.
type Overview struct {
	Schema int       `json:"schema"`
	At     time.Time `json:"at"`
	// Epoch is the scheduler's own.
	Epoch     uint64           `json:"epoch"`
	Nodes     []NodeStatus     `json:"nodes"`
	Instances []InstanceStatus `json:"instances"`
	// Functions holds what autoscaling wants, by function.
	Functions  []FunctionStatus  `json:"functions"`
	Namespaces []NamespaceStatus `json:"namespaces"`
	// Total is all namespaces together; its name is functions.QuotaTotal.
	Total *NamespaceStatus `json:"total,omitempty"`
	// Pool is where workers come from; nil where they join by themselves.
	Pool *PoolStatus `json:"pool,omitempty"`
}

// PoolStatus is a pool of workers, and what the scheduler wants of it.
type PoolStatus struct {
	Name string `json:"name"`
	// Elastic says that it may be resized. Count is how many workers it was told to have, between Min and Max, Wanted how many there should be and Reason why.
	Elastic bool   `json:"elastic"`
	Count   int    `json:"count"`
	Min     int    `json:"min"`
	Max     int    `json:"max"`
	Wanted  int    `json:"wanted"`
	Reason  string `json:"reason,omitempty"`
	// Running counts its workers that have joined and are not lost, Lacking the instances that find no room.
	Running int `json:"running"`
	Lacking int `json:"lacking"`
	// Busy says why it cannot be resized now.
	Busy string `json:"busy,omitempty"`
	// Resized is the last time that this scheduler resized it; nil where it has not.
	Resized *PoolResize `json:"resized,omitempty"`
}

// PoolResize is a change of a pool's size.
type PoolResize struct {
	At     time.Time `json:"at"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Reason string    `json:"reason"`
}

// String is the pool in a sentence.
func (p *PoolStatus) String() string {
	out := fmt.Sprintf("the pool, %s, has %d workers", p.Name, p.Count)
	if !p.Elastic {
		return out + " and is not resized from here"
	}
	out += fmt.Sprintf(" of %d to %d", p.Min, p.Max)
	if p.Wanted != p.Count {
		out += fmt.Sprintf(" and should have %d", p.Wanted)
	}
	if p.Reason != "" {
		out += ": " + p.Reason
	}
	if p.Busy != "" {
		out += "; it cannot be resized now: " + p.Busy
	}
	return out
}

// NodeStatus is a node as the scheduler sees it.
type NodeStatus struct {
	ID functions.NodeID `json:"id"`
	NodeState
	// Reserved is the sum of what placed instances may take.
	Reserved functions.Resources `json:"reserved"`
	// Pool is the name of the pool that runs the node's worker; empty where that has joined by itself.
	Pool     string `json:"pool,omitempty"`
	Cordoned bool   `json:"cordoned,omitempty"`
	// Intent is what an operator wants of the node, IntentReason why.
	Intent       functions.NodeIntent `json:"intent,omitempty"`
	IntentReason string               `json:"intentReason,omitempty"`
	// Drain is how far the drain is that an operator wants; nil where none does.
	Drain    *NodeDrain `json:"drain,omitempty"`
	LastSeen time.Time  `json:"lastSeen"`
}

// NodeDrain is how far a drain is.
type NodeDrain struct {
	// From is how many instances the node had, Left how many it has.
	From int `json:"from"`
	Left int `json:"left"`
	// Waits says what those that are left wait for, by function.
	Waits []string `json:"waits"`
}

// InstanceStatus is an instance as the scheduler sees it.
type InstanceStatus struct {
	InstanceReport
	Node functions.NodeID `json:"node"`
	// Placement says why the instance is where it is.
	Placement string `json:"placement,omitempty"`
}

// FunctionStatus is what autoscaling decided last for a function.
type FunctionStatus struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	Desired   int    `json:"desired"`
	// Starting, Ready and Draining count the instances of every revision; Frozen those of Ready that stand still until they are needed.
	Starting int `json:"starting"`
	Ready    int `json:"ready"`
	Frozen   int `json:"frozen,omitempty"`
	Draining int `json:"draining"`
	// Reason says why Desired is what it is, Pending why fewer exist; both for people.
	Reason  string `json:"reason,omitempty"`
	Pending string `json:"pending,omitempty"`
	// ColdStarts counts instances started since the scheduler's start; StartFailures those that never became ready.
	ColdStarts    uint64 `json:"coldStarts"`
	StartFailures uint64 `json:"startFailures"`
}

// NamespaceStatus is a namespace's use of its quota.
type NamespaceStatus struct {
	Namespace string              `json:"namespace"`
	Used      functions.Resources `json:"used"`
	Functions int                 `json:"functions"`
	// Quota is the namespace's own; nil where it has none.
	Quota *functions.Quota `json:"quota,omitempty"`
	// Effective is the quota as it holds, the own one over the defaults: a zero bound is none.
	Effective *functions.Quota `json:"effective,omitempty"`
}

// ExplainRequest asks for the reason behind a function's or an instance's state; one of the two is set.
type ExplainRequest struct {
	Schema   int                  `json:"schema"`
	Function *functions.Ref       `json:"function,omitempty"`
	Instance functions.InstanceID `json:"instance,omitempty"`
}

// Explanation is the answer to an ExplainRequest.
type Explanation struct {
	Schema int `json:"schema"`
	// Found is false when the scheduler knows no such thing.
	Found   bool   `json:"found"`
	Subject string `json:"subject"`
	// Lines say what was decided and why, the latest first.
	Lines []ExplanationLine `json:"lines"`
	// Kinds says of nodes that are alike what an instance more finds on them.
	Kinds []KindVerdict `json:"kinds,omitempty"`
	// Nodes says of the first nodes, and of the one chosen, what it finds there.
	Nodes []NodeVerdict `json:"nodes,omitempty"`
	// Try lists commands that would help.
	Try []string `json:"try,omitempty"`
}

// ExplanationLine is one decision.
type ExplanationLine struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// KindVerdict is what an instance finds on nodes that are alike: Fits of them have room, the reason says what keeps it from the others.
type KindVerdict struct {
	Kind   string `json:"kind"`
	Nodes  int    `json:"nodes"`
	Fits   int    `json:"fits"`
	Reason string `json:"reason"`
}

// NodeVerdict is what a placement decision found about a node.
type NodeVerdict struct {
	Node   functions.NodeID `json:"node"`
	Name   string           `json:"name"`
	Chosen bool             `json:"chosen"`
	Reason string           `json:"reason"`
}
