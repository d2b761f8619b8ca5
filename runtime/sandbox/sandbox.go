package sandbox

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Driver makes sandboxes on this node. Its methods may be called at the same time from many goroutines.
type Driver interface {
	// Prepare makes the artifact ready to run: pulled or imported, verified by digest, unpacked. It returns the artifact's own
	// configuration. It is idempotent; calls for one artifact at the same time share the work. Faults: invalid-artifact (no image, wrong
	// architecture, digest mismatch, a path that escapes), unavailable (registry not reached), denied (registry's refusal).
	Prepare(ctx context.Context, a functions.Artifact) (Image, error)
	// Prepared lists the digests that need no more preparation.
	Prepared() []string
	// Create makes a sandbox and starts its process. Spec.Artifact must have been prepared. On an error nothing is left behind.
	Create(ctx context.Context, s Spec) (Sandbox, error)
	// Lacks are the features that this node does not have now, each with the reason, for people: Create fails for a Spec that needs one. It is quick.
	Lacks() map[functions.Feature]string
	// List returns every sandbox that exists, running or not, those of an earlier run of this process included.
	List(ctx context.Context) ([]Sandbox, error)
	// Forget gives back what Prepare holds for the digest. Sandboxes that use it keep running.
	Forget(ctx context.Context, digest string) error
	// Release gives back what is kept only to make starts of the digest quicker, for none is expected any more. What Prepare holds stays.
	Release(digest string)
	// Close releases the driver. Sandboxes keep running.
	Close() error
}

// Image is what an artifact says of itself.
type Image struct {
	Digest     string
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	// User is as the image has it: a name or number, a group after ':'.
	User string
	// Size is the size of the unpacked layers, in bytes; 0 when unknown.
	Size int64
}

// Spec is one sandbox to be made.
type Spec struct {
	// ID is unique on the node and over time.
	ID       functions.InstanceID
	Artifact functions.Artifact
	// Command replaces the image's entrypoint and command; empty keeps them.
	Command []string
	// Env is added to the image's; each is KEY=value.
	Env    []string
	Port   int
	Limits functions.Limits
	// Activate asks that a socket listens on Port before the process is started, and is handed over to it by systemd's protocol: as descriptor 3,
	// told by LISTEN_FDS and LISTEN_PID. Where the driver cannot, Info.Activated is false, and the process must listen by itself.
	Activate bool
	// ReadOnlyRoot leaves /tmp as the only writable place.
	ReadOnlyRoot bool
	// Egress lets the process open connections to the internet; without it there is a loopback device only. Create fails with unavailable
	// where the node cannot do that.
	Egress bool
	// GVisor has the process's system calls answered by gVisor's kernel instead of the node's. Create fails with unavailable where the node
	// cannot do that.
	GVisor bool
	// Hostname is what the process sees; empty: the ID.
	Hostname string
	// Record is kept with the sandbox and comes back in Info after a restart: what the worker needs to adopt it. At most 64 KiB.
	Record []byte
}

// Info describes a sandbox.
type Info struct {
	ID     functions.InstanceID
	Record []byte
	// PID is the process's id on the node; 0 when it does not run.
	PID     int
	Created time.Time
	// Create is how long making the sandbox took, Start how long starting its process; zero for an adopted one.
	Create, Start time.Duration
	// StartPath names the way in which it was started, of those that the driver has; PathReason says why a faster one was not taken. Both are
	// empty for an adopted sandbox.
	StartPath, PathReason string
	// Activated says that the process was given a socket that listens; false for an adopted sandbox.
	Activated bool
	// RunsAs says for people which user the process has been started as, and why; empty for an adopted sandbox.
	RunsAs string
	// NotRoot says why the process of an image that names root, or no user, runs as another user; empty where it runs as the image asks.
	NotRoot string
	// Stdout and Stderr are files to which the process's output is appended by a side that outlives this process. The reader may
	// truncate them at any time. They go away with the sandbox.
	Stdout, Stderr string
}

// Sandbox is one sandbox. Its methods may be called at the same time from many goroutines.
type Sandbox interface {
	Info() Info
	// Dial connects to the function's port inside the sandbox, over loopback, IPv4 first.
	Dial(ctx context.Context) (net.Conn, error)
	// AwaitListening returns once the function's port takes connections; an error when ctx or the process has ended before.
	AwaitListening(ctx context.Context) error
	// Exec runs a further process in the sandbox with the function's user, environment and limits, and returns its exit code.
	Exec(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
	Stats(ctx context.Context) (functions.Usage, error)
	// Freeze keeps the sandbox's processes from running, and returns once they stand still; what they hold stays, and the kernel goes on to take
	// connections for them. After an error, the end of ctx included, some may stand still until Thaw. Fault unavailable: the node has no
	// freezer. Exec must not be called before Thaw; Stop may.
	Freeze(ctx context.Context) error
	// Thaw lets the processes run again. Where they do, or have ended, it does nothing. It must not be called while Freeze is under way.
	Thaw() error
	// Reclaim asks the kernel to take back memory of a frozen sandbox that it can get again later, and returns how much it was, in bytes. Errors
	// wrap errors.ErrUnsupported where the node has no way to ask.
	Reclaim(ctx context.Context) (int64, error)
	// Stop ends the process (SIGTERM, grace, SIGKILL) and removes the sandbox. Calling it again, or after the process has ended, is no
	// error. When ctx ends early the removal goes on at the next Stop or List.
	Stop(ctx context.Context, grace time.Duration) error
	// Done is closed once the process has ended.
	Done() <-chan struct{}
	// Exit is how the process ended; valid once Done is closed.
	Exit() functions.Exit
}
