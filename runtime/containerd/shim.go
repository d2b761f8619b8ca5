//go:build linux

package containerd

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin" // the shim's service
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/tatami-faas/tatami/runtime/signals"
)

const (
	runtimeName   = "io.containerd.runc.v2"
	shimTask      = "io.containerd.ttrpc.v1.task"
	shimFirstFlag = "-namespace"
)

// IsShim reports whether the program was started as a shim: RunShim is then all it may do. The shim starts itself again by the
// program's real path, so the arguments tell, not the name.
func IsShim(args []string) bool {
	return len(args) > 1 && args[1] == shimFirstFlag || len(args) > 0 && filepath.Base(args[0]) == "containerd-shim-runc-v2"
}

// RunShim is the shim's main function; it ends the program on failure. It must be called before anything else is started.
func RunShim() {
	// Server and shim register their plugins in one registry: the shim keeps its own only, it would fail on the others.
	all := registry.Graph(func(*plugin.Registration) bool { return false })
	registry.Reset()
	for i := range all {
		if all[i].URI() == shimTask {
			registry.Register(&all[i])
		}
	}
	// runc would wait for the container's sd_notify.
	_ = os.Unsetenv("NOTIFY_SOCKET")
	_ = log.SetLevel("warn")
	// The OCI runtime hears the others by itself.
	signals.Hear(signals.OfTheLibrary)
	shim.RunShim(context.Background(), manager.NewShimManager(runtimeName), func(c *shim.Config) {
		// The log would be a FIFO in the working directory, which nobody reads.
		c.NoSetupLogger = os.Getenv(envShim) != ""
	})
}
