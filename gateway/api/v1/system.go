package v1

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Version says what a binary is.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Status is the system at a glance.
type Status struct {
	Version Version          `json:"version"`
	Mode    string           `json:"mode"`
	Node    functions.NodeID `json:"node,omitempty"`
	Started time.Time        `json:"started"`
	// PublicURL is where functions are called, ControlURL where this API is over TCP.
	PublicURL  string `json:"publicURL"`
	ControlURL string `json:"controlURL,omitempty"`
	Domain     string `json:"domain,omitempty"`
	DataDir    string `json:"dataDir,omitempty"`
	// Architectures are those of the nodes: what artifacts are built for.
	Architectures []string `json:"architectures"`
	Nodes         int      `json:"nodes"`
	Functions     int      `json:"functions"`
	// Instances counts those that run.
	Instances InstanceCounts      `json:"instances"`
	Capacity  functions.Resources `json:"capacity"`
	Reserved  functions.Resources `json:"reserved"`
	Queue     QueueDepth          `json:"queue"`
	// RPS, InFlight and Waiting are of all gateways that told theirs; see Servers.
	RPS      float64 `json:"rps"`
	InFlight int     `json:"inFlight"`
	Waiting  int     `json:"waiting"`
	// Cluster is the name of the cluster, and Servers are its servers; they are left out where the server stands alone.
	Cluster string   `json:"cluster,omitempty"`
	Servers []Server `json:"servers,omitempty"`
	// Warnings are sentences an operator should know of, such as a data directory that may lose accepted work at a power loss.
	Warnings []string `json:"warnings"`
}

// Server is one of the servers of a cluster, as the one that is asked sees it.
type Server struct {
	// Name is its machine's, Server its name in certificates and logs; that is left out where it has not been heard.
	Name   string `json:"name"`
	Server string `json:"server,omitempty"`
	State  string `json:"state" enum:"up,missing"`
	Leads  bool   `json:"leads"`
	// Peer is where the other servers reach it, NATS where workers and callers do, PublicURL where it serves functions.
	Peer      string `json:"peer"`
	NATS      string `json:"nats,omitempty"`
	PublicURL string `json:"publicURL,omitempty"`
	Version   string `json:"version,omitempty"`
	// Misses are the servers that it does not hear.
	Misses   []string   `json:"misses,omitempty"`
	Started  *time.Time `json:"started,omitempty"`
	LastSeen *time.Time `json:"lastSeen,omitempty"`
	// Traffic is what its gateway saw; it is left out where that did not tell.
	Traffic *GatewayTraffic `json:"traffic,omitempty"`
}

// GatewayTraffic is what the gateway of one server saw: counters since its start, the rate over the last minute.
type GatewayTraffic struct {
	Requests   uint64  `json:"requests"`
	Errors     uint64  `json:"errors"`
	ColdStarts uint64  `json:"coldStarts"`
	InFlight   int     `json:"inFlight"`
	Waiting    int     `json:"waiting"`
	RPS        float64 `json:"rps"`
}

// The states of a server.
const (
	ServerUp      = "up"
	ServerMissing = "missing"
)

// Node is a machine that runs a worker.
type Node struct {
	ID           functions.NodeID `json:"id"`
	Name         string           `json:"name"`
	Architecture string           `json:"architecture"`
	State        string           `json:"state" enum:"ready,draining,drained,cordoned,left,lost"`
	// Intent is what an operator wants of the node, Reason why.
	Intent functions.NodeIntent `json:"intent" enum:"open,cordoned,drained"`
	Reason string               `json:"reason,omitempty"`
	// Drain is how far the drain is that an operator wants.
	Drain       *NodeDrain          `json:"drain,omitempty"`
	Capacity    functions.Resources `json:"capacity"`
	Allocatable functions.Resources `json:"allocatable"`
	Reserved    functions.Resources `json:"reserved"`
	// CPUUsed is in millicores and MemoryUsed in bytes, both of the whole machine.
	CPUUsed    int64 `json:"cpuUsedMillis"`
	MemoryUsed int64 `json:"memoryUsedBytes"`
	Instances  int   `json:"instances"`
	// Pool is what runs the node's worker, or static where that has joined by itself.
	Pool      string            `json:"pool"`
	Artifacts []string          `json:"artifacts,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Lacks says what functions may need and the node does not have, gvisor and egress, each with the reason.
	Lacks    map[functions.Feature]string `json:"lacks,omitempty"`
	LastSeen time.Time                    `json:"lastSeen"`
}

// PoolResize is a change of a pool's size.
type PoolResize struct {
	At     time.Time `json:"at"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Reason string    `json:"reason"`
}

// Pool is where workers come from.
type Pool struct {
	// Name is static where workers join by themselves.
	Name string `json:"name"`
	// Elastic says that it is resized by what functions need. Count is how many workers it was told to have, between Min and Max, Wanted how many there should
	// be and Reason why.
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
	// Resized is the last time that the scheduler resized it; it is left out where it has not.
	Resized *PoolResize `json:"resized,omitempty"`
	// Text is all of that in a sentence.
	Text string `json:"text"`
}

// NodeDrain is how far a drain is: of From instances Left are left. Waits says what these wait for, by function.
type NodeDrain struct {
	From  int      `json:"from"`
	Left  int      `json:"left"`
	Waits []string `json:"waits"`
}

// CompactRequest asks to give back up to Nodes nodes, 1 if it is left out. With DryRun nothing is done.
type CompactRequest struct {
	Nodes  int  `json:"nodes,omitempty" minimum:"0" maximum:"1000"`
	DryRun bool `json:"dryRun,omitempty"`
}

// CompactPlan says which nodes can be given back, the emptiest first, and where what is on them fits.
type CompactPlan struct {
	Nodes []CompactNode `json:"nodes"`
	Moves []CompactMove `json:"moves"`
	// Draining says that the nodes were told to drain.
	Draining bool `json:"draining"`
}

// CompactNode is a node that can be given back; Reserved is what its instances hold.
type CompactNode struct {
	Node     functions.NodeID    `json:"node"`
	Name     string              `json:"name"`
	Reserved functions.Resources `json:"reserved"`
}

// CompactMove is an instance that has to be elsewhere; From and To are names of nodes.
type CompactMove struct {
	Instance  functions.InstanceID `json:"instance"`
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	From      string               `json:"from"`
	To        string               `json:"to"`
}

// NodeTokenRequest asks for a token with which one worker may join.
type NodeTokenRequest struct {
	// Node is whose worker it is for, for people to read.
	Node string `json:"node"`
	// Expires is how long the token waits for its worker: 1m to 30 days. Default 24h.
	Expires functions.Duration `json:"expires,omitempty"`
}

// NodeToken lets one worker join, once.
type NodeToken struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	State   string    `json:"state" enum:"unused,used,expired,revoked"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Used is when a worker joined with it, By the node that it became.
	Used    time.Time        `json:"used,omitzero"`
	By      functions.NodeID `json:"by,omitempty"`
	Revoked time.Time        `json:"revoked,omitzero"`
	// Token is the token itself and Join where to join with it; both only in the answer to its creation.
	Token string `json:"token,omitempty"`
	Join  string `json:"join,omitempty"`
}

// CallerTokenRequest asks for a user name and a password with which somebody may call functions over NATS.
type CallerTokenRequest struct {
	// Caller is who it is, for people to read.
	Caller string `json:"caller"`
	// Namespaces are those whose functions it may call, or "*" alone for all. Default the namespace default.
	Namespaces []string `json:"namespaces,omitempty"`
}

// CallerToken lets somebody call functions over NATS, until it is revoked.
type CallerToken struct {
	// ID is the user name, too.
	ID         string    `json:"id"`
	Caller     string    `json:"caller"`
	Namespaces []string  `json:"namespaces"`
	State      string    `json:"state" enum:"active,revoked"`
	Created    time.Time `json:"created"`
	Revoked    time.Time `json:"revoked,omitzero"`
	// Token is the password and URL where to connect, user and password included; both only in the answer to its creation.
	Token string `json:"token,omitempty"`
	URL   string `json:"url,omitempty"`
}

// NodeIntent is a wish about a node.
type NodeIntent struct {
	Intent functions.NodeIntent `json:"intent" enum:"open,cordoned,drained"`
	// Reason is why, for others.
	Reason string `json:"reason,omitempty"`
}

// Instance is a running copy of a revision.
type Instance struct {
	ID        functions.InstanceID    `json:"id"`
	Namespace string                  `json:"namespace"`
	Function  string                  `json:"function"`
	Revision  functions.RevisionID    `json:"revision"`
	Node      functions.NodeID        `json:"node"`
	NodeName  string                  `json:"nodeName,omitempty"`
	State     functions.InstanceState `json:"state" enum:"starting,ready,draining,stopped,failed"`
	Reason    string                  `json:"reason,omitempty"`
	// Placement says why the instance is on its node.
	Placement string              `json:"placement,omitempty"`
	Exit      *functions.Exit     `json:"exit,omitempty"`
	Logs      []string            `json:"logs,omitempty"`
	Since     time.Time           `json:"since"`
	Started   time.Time           `json:"started"`
	LastUsed  time.Time           `json:"lastUsed,omitzero"`
	Slots     int                 `json:"slots"`
	Held      int                 `json:"held"`
	Reserved  functions.Resources `json:"reserved"`
	Usage     functions.Usage     `json:"usage"`
	Phases    functions.Phases    `json:"phases"`
	Adopted   bool                `json:"adopted,omitempty"`
	PID       int                 `json:"pid,omitempty"`
}

// Ref returns the name of the instance's function.
func (i Instance) Ref() functions.Ref {
	return functions.Ref{Namespace: i.Namespace, Name: i.Function}
}

// ExecRequest asks for a further process in an instance's sandbox.
type ExecRequest struct {
	Args  []string `json:"args" required:"true" minItems:"1"`
	Stdin []byte   `json:"stdin,omitempty"`
}

// ExecResult is how that process ended. Output beyond a bound is cut off.
type ExecResult struct {
	ExitCode int    `json:"exitCode"`
	Stdout   []byte `json:"stdout,omitempty"`
	Stderr   []byte `json:"stderr,omitempty"`
}

// Explanation says why a function or an instance is as it is.
type Explanation struct {
	Subject string     `json:"subject"`
	Lines   []Decision `json:"lines"`
	// Kinds says of nodes that are alike what an instance more finds on them, Nodes of the first nodes one by one.
	Kinds []KindVerdict `json:"kinds,omitempty"`
	Nodes []NodeVerdict `json:"nodes,omitempty"`
	Try   []string      `json:"try,omitempty"`
}

// Decision is something that was decided, and why.
type Decision struct {
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

// NodeVerdict is why a node was or was not chosen at the last placement.
type NodeVerdict struct {
	Node   functions.NodeID `json:"node"`
	Name   string           `json:"name"`
	Chosen bool             `json:"chosen"`
	Reason string           `json:"reason"`
}

// Token is the credential of the control API over TCP.
type Token struct {
	Token string `json:"token"`
}

// Link opens the dashboard once.
type Link struct {
	// Path is relative to the control listener's address.
	Path    string    `json:"path"`
	URL     string    `json:"url,omitempty"`
	Expires time.Time `json:"expires"`
}

// CheckState is how a check of doctor came out.
type CheckState string

// The outcomes of a check.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn"
	CheckFail CheckState = "fail"
)

// Check is one finding of doctor.
type Check struct {
	Name  string     `json:"name"`
	State CheckState `json:"state" enum:"ok,warn,fail"`
	// Detail is what was found, Fix what to do about it.
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// LogLine is a line that an instance wrote.
type LogLine struct {
	Time     time.Time            `json:"time"`
	Instance functions.InstanceID `json:"instance"`
	Revision functions.RevisionID `json:"revision,omitempty"`
	// Stream is "stdout" or "stderr", or "tatami" where the platform says what became of the instance.
	Stream string `json:"stream" enum:"stdout,stderr,tatami"`
	Text   string `json:"text"`
}
