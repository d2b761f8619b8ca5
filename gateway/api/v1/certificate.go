package v1

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Certificates are those between servers and workers, and the authorities that they are from.
type Certificates struct {
	// Authorities are those that are trusted: the one that certifies, and while it is new the one before.
	Authorities  []Authority   `json:"authorities"`
	Certificates []Certificate `json:"certificates"`
	// Waits says for whom the retirement of the authority before waits: ids of nodes, names of servers.
	Waits []string `json:"waits,omitempty"`
}

// Authority certifies who is a server and who is a node's worker.
type Authority struct {
	// Pin is the hash of its public key, by which tokens name it.
	Pin   string    `json:"pin"`
	State string    `json:"state" enum:"certifies,retiring"`
	Since time.Time `json:"since"`
}

// Certificate is the one that a server or a worker has.
type Certificate struct {
	// Serial is its number; empty where nothing was heard of it since the server began.
	Serial string `json:"serial,omitempty"`
	Role   string `json:"role" enum:"server,worker"`
	// Server is a server's name, Node the id of a worker's node and Name what that is called, where it is known.
	Server string           `json:"server,omitempty"`
	Node   functions.NodeID `json:"node,omitempty"`
	Name   string           `json:"name,omitempty"`
	Until  time.Time        `json:"until,omitzero"`
	// Authority is the pin of the one that it is from.
	Authority string `json:"authority,omitempty"`
	State     string `json:"state" enum:"current,behind,away"`
}

// RotateRequest asks for another authority.
type RotateRequest struct {
	// Now waits for nobody: the authority before is not trusted from that moment on.
	Now bool `json:"now,omitempty"`
}
