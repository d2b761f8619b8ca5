package functions

import "time"

// Schema is the schema number of the records that this package defines: Function, Revision, Invocation, Result, Quota.
const Schema = 1

// MaxRevisions is how many revisions a function keeps; the oldest that carries no traffic goes first.
const MaxRevisions = 20

// Function is the record of a function: which revision has the traffic and which one is on its way to it.
type Function struct {
	Schema    int    `json:"schema"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Live is the revision that takes the traffic; empty until a first one became ready.
	Live RevisionID `json:"live,omitempty"`
	// Candidate is the revision that takes the traffic when one instance of it is ready; empty when no deploy is under way.
	Candidate RevisionID `json:"candidate,omitempty"`
	// Previous is what Rollback without an argument returns to.
	Previous RevisionID `json:"previous,omitempty"`
	// Revisions lists the revisions kept, in the order of their deploys, newest last.
	Revisions []RevisionID `json:"revisions"`
	// Generation grows by one with each change of the record.
	Generation uint64    `json:"generation"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
}

// Ref returns the function's name.
func (f *Function) Ref() Ref { return Ref{Namespace: f.Namespace, Name: f.Name} }

// RevisionState is how far a revision got.
type RevisionState string

// The states of a revision.
const (
	// RevisionPending: no instance was ready yet.
	RevisionPending RevisionState = "pending"
	// RevisionReady: an instance was ready once; the revision may take traffic.
	RevisionReady RevisionState = "ready"
	// RevisionFailed: it never became ready; Reason and Logs say why.
	RevisionFailed RevisionState = "failed"
)

// Revision is the record of one immutable version of a function. State, Reason and Logs are what became of it; nothing else changes.
type Revision struct {
	Schema    int           `json:"schema"`
	ID        RevisionID    `json:"id"`
	Namespace string        `json:"namespace"`
	Function  string        `json:"function"`
	Artifact  Artifact      `json:"artifact"`
	Config    Config        `json:"config"`
	Created   time.Time     `json:"created"`
	State     RevisionState `json:"state"`
	// Reason says why the revision failed.
	Reason string `json:"reason,omitempty"`
	// Logs are the last lines of the instance that failed, at most 50.
	Logs []string `json:"logs,omitempty"`
}

// Ref returns the name of the revision's function.
func (r *Revision) Ref() Ref { return Ref{Namespace: r.Namespace, Name: r.Function} }

// Artifact is what a revision runs: an OCI image.
type Artifact struct {
	// Digest is the digest of the image's manifest for the node's platform, "sha256:" and 64 hexadecimal digits.
	Digest string `json:"digest"`
	// Reference is where the image is pulled from, without tag or digest; empty when its blobs are in the artifact store.
	Reference string `json:"reference,omitempty"`
	// Name is what the user called it: an image reference, a directory, a file. For people only.
	Name string `json:"name,omitempty"`
	// Architecture is GOARCH's name for the image's architecture.
	Architecture string `json:"architecture"`
	// Size is the sum of the compressed layers, in bytes; 0 when unknown.
	Size int64 `json:"size,omitempty"`
}
