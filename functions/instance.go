package functions

// InstanceState is where an instance stands in its life.
type InstanceState string

// The states of an instance, in their order. Idle is ready with no slot held; frozen is idle, and no process of it runs until a slot is taken.
const (
	InstanceStarting InstanceState = "starting"
	InstanceReady    InstanceState = "ready"
	InstanceFrozen   InstanceState = "frozen"
	InstanceDraining InstanceState = "draining"
	InstanceStopped  InstanceState = "stopped"
	InstanceFailed   InstanceState = "failed"
)

// Gone reports whether the instance no longer runs.
func (s InstanceState) Gone() bool { return s == InstanceStopped || s == InstanceFailed }

// Serves reports whether the instance takes requests.
func (s InstanceState) Serves() bool { return s == InstanceReady || s == InstanceFrozen }

// Phases are the parts of a cold start, in the order in which they happen.
type Phases struct {
	// Place is from the demand's arrival at the scheduler to the command's arrival at the worker.
	Place Duration `json:"place"`
	// Prepare is the artifact's import and unpacking; 0 when the node held it.
	Prepare Duration `json:"prepare"`
	// Create is the making of the sandbox up to its process being ready to start.
	Create Duration `json:"create"`
	// Start is the start of the process.
	Start Duration `json:"start"`
	// Ready is from the process's start to its readiness.
	Ready Duration `json:"ready"`
	// Path names the way in which the sandbox was started, PathReason why a faster one was not taken. Empty where the node does not say.
	Path       string `json:"path,omitempty"`
	PathReason string `json:"pathReason,omitempty"`
	// User says for people which user the process was started as, and why.
	User string `json:"user,omitempty"`
}

// Exit is how an instance's process ended.
type Exit struct {
	Code int `json:"code"`
	// OOM says that the kernel killed it for want of memory.
	OOM bool `json:"oom,omitempty"`
}

// Usage is what an instance takes by its cgroup's account.
type Usage struct {
	// CPU is the processor time used so far.
	CPU Duration `json:"cpu"`
	// Memory is in bytes, file cache not counted.
	Memory int64 `json:"memoryBytes"`
	PIDs   int64 `json:"pids"`
}
