package v1

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// DeployRequest asks for a new revision of a function. One of Image and Digest is set.
type DeployRequest struct {
	// Image is a reference to be pulled from a registry: the server resolves it to a digest and pulls it.
	Image string `json:"image,omitempty" doc:"Image reference to be pulled from a registry" example:"docker.io/library/nginx:1.29"`
	// Digest is the digest of an image manifest whose blobs were uploaded.
	Digest string `json:"digest,omitempty" doc:"Digest of an uploaded image manifest" example:"sha256:0c1b…"`
	// Name is what the user calls the artifact; for people only.
	Name   string           `json:"name,omitempty" doc:"What the artifact is called, for people" maxLength:"1024"`
	Config functions.Config `json:"config,omitempty" doc:"How the artifact is run; a field left out has its default"`
	// NoWait makes the answer come as soon as the revision is durable: the traffic moves later, or not at all.
	NoWait bool `json:"noWait,omitempty" doc:"Answer once the revision is durable, before it takes traffic"`
}

// RollbackRequest asks for the traffic to go back to an earlier revision.
type RollbackRequest struct {
	// Revision is where to; empty: the one that had the traffic before.
	Revision functions.RevisionID `json:"revision,omitempty" doc:"Where the traffic goes; empty: the revision that had it before"`
}

// DeployResult is what came of a deploy or a rollback.
type DeployResult struct {
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	Revision  functions.RevisionID `json:"revision"`
	// Previous is the revision that had the traffic before; empty at the first deploy.
	Previous functions.RevisionID `json:"previous,omitempty"`
	// Live says that the revision has the traffic and that the gateway's routes know it.
	Live bool `json:"live"`
	// Changed is false when the revision had the traffic already.
	Changed bool `json:"changed"`
	// URL is where the function is called.
	URL      string             `json:"url,omitempty"`
	Artifact functions.Artifact `json:"artifact"`
	// Took is the time from the request to the traffic's move.
	Took functions.Duration `json:"took"`
}

// Ref returns the function's name.
func (d DeployResult) Ref() functions.Ref {
	return functions.Ref{Namespace: d.Namespace, Name: d.Function}
}

// Function is a function with what is known of it now.
type Function struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	URL       string `json:"url,omitempty"`
	// Live is the revision with the traffic, Candidate one on its way to it, Previous where a rollback goes.
	Live      functions.RevisionID   `json:"live,omitempty"`
	Candidate functions.RevisionID   `json:"candidate,omitempty"`
	Previous  functions.RevisionID   `json:"previous,omitempty"`
	Revisions []functions.RevisionID `json:"revisions"`
	Created   time.Time              `json:"created"`
	Updated   time.Time              `json:"updated"`
	Instances InstanceCounts         `json:"instances"`
	Traffic   Traffic                `json:"traffic"`
	Queue     QueueDepth             `json:"queue"`
	// Reason says why there are as many instances as there are, Pending why there are fewer than wanted.
	Reason  string `json:"reason,omitempty"`
	Pending string `json:"pending,omitempty"`
	// Current is the live revision, else the candidate, else the latest that failed; only where a single function is asked for.
	Current *Revision `json:"current,omitempty"`
}

// Ref returns the function's name.
func (f Function) Ref() functions.Ref { return functions.Ref{Namespace: f.Namespace, Name: f.Name} }

// InstanceCounts counts a function's instances. Frozen are those of Ready that stand still until they are needed.
type InstanceCounts struct {
	Desired  int `json:"desired"`
	Starting int `json:"starting"`
	Ready    int `json:"ready"`
	Frozen   int `json:"frozen"`
	Draining int `json:"draining"`
}

// Traffic is what the gateways saw of a function: counters since the start of each, rates over the last minute.
type Traffic struct {
	Requests   uint64             `json:"requests"`
	Errors     uint64             `json:"errors"`
	ColdStarts uint64             `json:"coldStarts"`
	InFlight   int                `json:"inFlight"`
	Waiting    int                `json:"waiting"`
	RPS        float64            `json:"rps"`
	P50        functions.Duration `json:"p50"`
	P99        functions.Duration `json:"p99"`
	// Without names the servers of the cluster whose gateways did not tell what they saw: the figures are without theirs.
	Without []string `json:"without,omitempty"`
}

// QueueDepth counts the queued invocations of a function.
type QueueDepth struct {
	// Pending could run now.
	Pending int `json:"pending"`
	// Scheduled wait for their time: retries, mostly.
	Scheduled int `json:"scheduled"`
	Running   int `json:"running"`
	Dead      int `json:"dead"`
	// Oldest is when the oldest pending one was accepted.
	Oldest time.Time `json:"oldest,omitzero"`
}

// RevisionSuperseded is the state of a revision whose place another deploy took before an instance of it was ready. Its record says pending.
const RevisionSuperseded functions.RevisionState = "superseded"

// Revision is a revision of a function.
type Revision struct {
	ID        functions.RevisionID    `json:"id"`
	Namespace string                  `json:"namespace"`
	Function  string                  `json:"function"`
	State     functions.RevisionState `json:"state" enum:"pending,ready,failed,superseded"`
	Live      bool                    `json:"live"`
	Reason    string                  `json:"reason,omitempty"`
	Logs      []string                `json:"logs,omitempty"`
	Artifact  functions.Artifact      `json:"artifact"`
	Config    functions.Config        `json:"config"`
	Created   time.Time               `json:"created"`
}

// BlobsRequest names blobs by digest.
type BlobsRequest struct {
	Digests []string `json:"digests" required:"true" maxItems:"1000" doc:"Digests of blobs"`
}

// BlobsMissing is the answer to a BlobsRequest: those that the server does not hold.
type BlobsMissing struct {
	Missing []string `json:"missing"`
}
