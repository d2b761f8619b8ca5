package placement

import (
	"fmt"

	"github.com/tatami-faas/tatami/functions"
)

// Node is a node as placement sees it. What is reserved on it only its engine knows.
type Node struct {
	ID           functions.NodeID
	Name         string
	Architecture string
	// Allocatable is what may be given away.
	Allocatable functions.Resources
	// Known says that the node's instances are known: before its first full report nothing is placed on it.
	Known    bool
	Lost     bool
	Draining bool
	Cordoned bool
	// Artifacts holds the digests that the node has unpacked.
	Artifacts map[string]struct{}
	// Zone is the part of the site that fails together; empty where there are none. Labels are the operator's.
	Zone   string
	Labels map[string]string
	// Lacks are the features that the node does not have, each with the reason.
	Lacks map[functions.Feature]string
}

// Open reports whether the node takes instances at all, leaving its room aside.
func (n *Node) Open() bool { return n.Known && !n.Lost && !n.Draining && !n.Cordoned }

// Budget is a namespace's quota and what its instances hold of it. A zero Quota bounds nothing.
type Budget struct {
	Namespace string
	Quota     functions.Quota
	Used      functions.Resources
}

// Request is an instance to be placed.
type Request struct {
	Resources    functions.Resources
	Architecture string
	// Digest is the artifact's: a node that holds it is preferred among those that are nearly as tight.
	Digest string
	// Namespace is the one whose quota the instance counts against.
	Namespace string
	// Needs are the features that the node must have.
	Needs []functions.Feature
	// Affinity says which labels nodes must or should have; nil is any.
	Affinity *Affinity
	// Spread keeps the function's instances apart: the peers are the nodes that host one, each as often as it does.
	Spread Spread
	Peers  []NodeRef
	// Near are nodes that host what the instance should be near, Apart those that host what it should be apart from, each as often as it does.
	Near, Apart []NodeRef
}

func compatible(node, image string) bool { return node == "" || image == "" || node == image }

func millicores(v int64) string { return fmt.Sprintf("%dm", v) }

func mebibytes(v int64) string {
	if v%functions.GiB == 0 && v != 0 {
		return fmt.Sprintf("%d GiB", v/functions.GiB)
	}
	return fmt.Sprintf("%d MiB", v/functions.MiB)
}
