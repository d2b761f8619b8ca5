package live

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Schema is the schema number of Snapshot and Delta.
const Schema = 1

// Level says how bad a Verdict is.
type Level string

// The levels, from the best to the worst.
const (
	LevelIdle Level = "idle"
	LevelOK   Level = "ok"
	LevelWarn Level = "warn"
	LevelBad  Level = "bad"
)

// Verdict is one sentence about the system and the command that tells more.
type Verdict struct {
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

// Snapshot is the whole picture at one time. Durations are in milliseconds, memory in bytes, processors in millicores.
type Snapshot struct {
	Schema int `json:"schema"`
	// ID is the id of the stream's event that leads to this picture.
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Stale says since when the scheduler has not answered: nodes and instances are of then.
	Stale *time.Time `json:"stale,omitempty"`
	// Verdict is the worst of Problems, or says that all is well.
	Verdict  Verdict   `json:"verdict"`
	Problems []Verdict `json:"problems"`
	Notices  []string  `json:"notices"`
	Totals   Totals    `json:"totals"`
	// Servers are those of the cluster; none where the server stands alone.
	Servers []Server `json:"servers"`
	// Pools are where workers come from that do not join by themselves.
	Pools      []bus.PoolStatus `json:"pools"`
	Nodes      []Node           `json:"nodes"`
	Instances  []Instance       `json:"instances"`
	Functions  []Function       `json:"functions"`
	Namespaces []Namespace      `json:"namespaces"`
	History    History          `json:"history"`
}

// Totals are the figures over everything.
type Totals struct {
	Functions int `json:"functions"`
	Nodes     int `json:"nodes"`
	// Instances counts those that exist, of which Starting, Ready and Draining are parts; Frozen is one of Ready.
	Instances int `json:"instances"`
	Starting  int `json:"starting"`
	Ready     int `json:"ready"`
	Frozen    int `json:"frozen"`
	Draining  int `json:"draining"`
	// Without names the servers whose gateways did not tell what they do: the rates, counts and durations here are without theirs.
	Without []string `json:"without,omitempty"`
	// RPS is over the last ten seconds.
	RPS float64 `json:"rps"`
	// P50 is the median of the functions' medians weighted by their requests, P99 the slowest function's, named in P99Function.
	P50         float64 `json:"p50Ms"`
	P99         float64 `json:"p99Ms"`
	P99Function string  `json:"p99Function,omitempty"`
	// ErrorShare is of the last minute, 0 to 1.
	ErrorShare float64 `json:"errorShare"`
	// Requests, Errors and ColdStarts are of the last 15 minutes.
	Requests   uint64 `json:"requests"`
	Errors     uint64 `json:"errors"`
	ColdStarts uint64 `json:"coldStarts"`
	InFlight   int    `json:"inFlight"`
	Waiting    int    `json:"waiting"`
	// Queued counts pending and scheduled invocations.
	Queued  int        `json:"queued"`
	Running int        `json:"running"`
	Dead    int        `json:"dead"`
	Oldest  *time.Time `json:"oldest,omitempty"`
	CPU     Resource   `json:"cpu"`
	Memory  Resource   `json:"memory"`
}

// Server is a server of the cluster.
type Server struct {
	Name  string `json:"name"`
	Peer  string `json:"peer"`
	Up    bool   `json:"up"`
	Leads bool   `json:"leads"`
	// Heard is when it was last heard; it is left out where it is up, or never was.
	Heard *time.Time `json:"heard,omitempty"`
	// Misses are the servers that it does not hear.
	Misses []string `json:"misses,omitempty"`
	// Gateway is what its gateway does; nil where it did not tell.
	Gateway *GatewayFigures `json:"gateway,omitempty"`
}

// GatewayFigures are what one gateway does: its rate is over the last ten seconds.
type GatewayFigures struct {
	RPS      float64 `json:"rps"`
	InFlight int     `json:"inFlight"`
	Waiting  int     `json:"waiting"`
}

// Resource holds the figures of one resource.
type Resource struct {
	Capacity    int64 `json:"capacity"`
	Allocatable int64 `json:"allocatable"`
	Reserved    int64 `json:"reserved"`
	// Used is the machines' whole use, Instances the part of it that instances take.
	Used      int64 `json:"used"`
	Instances int64 `json:"instances"`
}

// The states of a node.
const (
	NodeReady    = "ready"
	NodeLost     = "lost"
	NodeLeft     = "left"
	NodeDraining = "draining"
	NodeDrained  = "drained"
	NodeCordoned = "cordoned"
)

// Node is one node.
type Node struct {
	ID    functions.NodeID `json:"id"`
	Name  string           `json:"name"`
	State string           `json:"state"`
	// Reason is why an operator closed it, Left how many instances a drain has still to move.
	Reason       string `json:"reason,omitempty"`
	Left         int    `json:"left,omitempty"`
	Architecture string `json:"architecture"`
	// Pool is what runs the node's worker; it is left out where that has joined by itself.
	Pool     string    `json:"pool,omitempty"`
	CPU      Resource  `json:"cpu"`
	Memory   Resource  `json:"memory"`
	Slots    int64     `json:"slots"`
	LastSeen time.Time `json:"lastSeen"`
}

// Instance is one instance that exists.
type Instance struct {
	ID        functions.InstanceID    `json:"id"`
	Node      functions.NodeID        `json:"node"`
	Namespace string                  `json:"namespace"`
	Function  string                  `json:"function"`
	Revision  functions.RevisionID    `json:"revision"`
	State     functions.InstanceState `json:"state"`
	Reason    string                  `json:"reason,omitempty"`
	Placement string                  `json:"placement,omitempty"`
	Held      int                     `json:"held"`
	Slots     int                     `json:"slots"`
	CPU       int64                   `json:"cpuReserved"`
	Memory    int64                   `json:"memoryReserved"`
	CPUUsed   int64                   `json:"cpuUsed"`
	MemUsed   int64                   `json:"memoryUsed"`
	Since     time.Time               `json:"since"`
	Adopted   bool                    `json:"adopted,omitempty"`
	// Start is how long it took from the demand to readiness; 0 while it starts.
	Start float64 `json:"startMs"`
}

// Function is one function.
type Function struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	// RPS is over the last ten seconds; P50 and P99 over the last minute, 0 when nothing ran.
	RPS float64 `json:"rps"`
	P50 float64 `json:"p50Ms"`
	P99 float64 `json:"p99Ms"`
	// Requests, Errors and ColdStarts are of the last 15 minutes, ErrorShare of the last minute.
	Requests      uint64     `json:"requests"`
	Errors        uint64     `json:"errors"`
	ColdStarts    uint64     `json:"coldStarts"`
	ErrorShare    float64    `json:"errorShare"`
	InFlight      int        `json:"inFlight"`
	Waiting       int        `json:"waiting"`
	Desired       int        `json:"desired"`
	Starting      int        `json:"starting"`
	Ready         int        `json:"ready"`
	Frozen        int        `json:"frozen"`
	Draining      int        `json:"draining"`
	Reason        string     `json:"reason,omitempty"`
	Pending       string     `json:"pending,omitempty"`
	StartFailures uint64     `json:"startFailures"`
	Queue         QueueDepth `json:"queue"`
	// Spark is the rate of requests in steps of 30 seconds over 15 minutes, oldest first. In a Delta it is left out while no step ended.
	Spark []float64 `json:"spark,omitempty"`
}

// QueueDepth is what the queue holds for a function.
type QueueDepth struct {
	Pending   int        `json:"pending"`
	Scheduled int        `json:"scheduled"`
	Running   int        `json:"running"`
	Dead      int        `json:"dead"`
	Oldest    *time.Time `json:"oldest,omitempty"`
}

// Namespace is a namespace that has a quota, and its use.
type Namespace struct {
	Namespace string              `json:"namespace"`
	Used      functions.Resources `json:"used"`
	Functions int                 `json:"functions"`
	// Concurrent is what is in flight, Rate what was begun per second over the last ten.
	Concurrent int     `json:"concurrent"`
	Rate       float64 `json:"rate"`
	// Quota is what holds: a bound that is 0 or left out is none.
	Quota functions.Quota `json:"quota"`
}

// History is the totals' past, oldest first.
type History struct {
	// Step is the distance of two points in seconds, Columns the meaning of each of a point's numbers.
	Step    int      `json:"step"`
	Columns []string `json:"columns"`
	Points  []Point  `json:"points"`
}

// Point is one step of History: its begin in Unix seconds and one number for each further column.
type Point [len(columns)]float64

// Delta is what changed since the event before. A nil part did not change.
type Delta struct {
	At         time.Time         `json:"at"`
	Stale      *time.Time        `json:"stale,omitempty"`
	Verdict    *Verdict          `json:"verdict,omitempty"`
	Problems   *[]Verdict        `json:"problems,omitempty"`
	Notices    *[]string         `json:"notices,omitempty"`
	Totals     Totals            `json:"totals"`
	Pools      *[]bus.PoolStatus `json:"pools,omitempty"`
	Servers    *[]Server         `json:"servers,omitempty"`
	Nodes      []Node            `json:"nodes,omitempty"`
	Instances  []Instance        `json:"instances,omitempty"`
	Functions  []Function        `json:"functions,omitempty"`
	Namespaces *[]Namespace      `json:"namespaces,omitempty"`
	// Gone lists what is no longer there: node ids, instance ids, functions as namespace/name.
	Gone *Gone `json:"gone,omitempty"`
	// Points replace the point of the same time or come after the last.
	Points []Point `json:"points"`
}

// Gone names what disappeared.
type Gone struct {
	Nodes     []functions.NodeID     `json:"nodes,omitempty"`
	Instances []functions.InstanceID `json:"instances,omitempty"`
	Functions []string               `json:"functions,omitempty"`
}
