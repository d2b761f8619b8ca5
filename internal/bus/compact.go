package bus

import "github.com/tatami-faas/tatami/functions"

// CompactRequest asks which nodes could be emptied by moving what runs on them to others that run something already.
type CompactRequest struct {
	Schema int `json:"schema"`
	// Nodes is how many are wanted at most.
	Nodes int `json:"nodes"`
}

// CompactPlan is the answer: the nodes, the emptiest first, and where what is on them would fit.
type CompactPlan struct {
	Schema int           `json:"schema"`
	Nodes  []CompactNode `json:"nodes"`
	Moves  []CompactMove `json:"moves"`
}

// CompactNode is a node that could be given back.
type CompactNode struct {
	Node functions.NodeID `json:"node"`
	Name string           `json:"name"`
	// Reserved is what its instances hold.
	Reserved functions.Resources `json:"reserved"`
}

// CompactMove is an instance that would have to be elsewhere; From and To are names of nodes.
type CompactMove struct {
	Instance  functions.InstanceID `json:"instance"`
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	From      string               `json:"from"`
	To        string               `json:"to"`
}
