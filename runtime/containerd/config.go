//go:build linux

package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"path/filepath"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/runtime/egress"
)

// namespace holds everything of ours in containerd.
const namespace = "tatami"

// maxRunDir is the longest RunDir: the shims' sockets lie under it, and a unix socket's address has 108 bytes.
const maxRunDir = 40

// BlobSource gives the blobs of artifacts that have no reference to be pulled from.
type BlobSource interface {
	// Open returns the blob and its size. A blob that is not there is a not-found fault.
	Open(ctx context.Context, digest string) (io.ReadCloser, int64, error)
}

// Config says where the driver keeps its things.
type Config struct {
	// DataDir holds what outlives a reboot: the artifacts. Required.
	DataDir string
	// RunDir holds what does not: mounts, sockets, output. Required; absolute, at most 40 bytes, the same at every start on one node.
	RunDir string
	// Address is the socket of an existing containerd; empty: one inside this process.
	Address string
	// ParentCgroup is the cgroup above all sandboxes, from the root of the hierarchy; no other driver may use it. Default "/tatami/" and a
	// hash of RunDir.
	ParentCgroup string
	// NodeName tells this node's sandboxes from those of another that uses the same containerd. Default "local".
	NodeName string
	// Allocatable is what all sandboxes together may take; it becomes the parent cgroup's own limit, with a margin. A zero field sets none.
	Allocatable functions.Resources
	// DockerConfig is the directory of the docker configuration whose credentials registries get; empty: $DOCKER_CONFIG, else ~/.docker.
	DockerConfig string
	// SandboxPool is how many sandboxes are kept made ahead; a start in one of them takes a tenth of the time. Default 0, at most 1000;
	// PoolAuto: as many as the starts of late call for, within bounds by the node's memory.
	SandboxPool int
	// Precreated is how many containers are kept made ahead for starts that no sandbox of the pool is for, each for one kind of function that was
	// started lately. Default 0, at most MaxPrecreated; PoolAuto: by the node's memory.
	Precreated int
	// UserNamespaces has images that name root, or no user, run as root of a user namespace, where this machine can do that; else they run
	// as user 65532.
	UserNamespaces bool
	// GVisor offers gVisor's sandboxes, where runsc is installed.
	GVisor bool
	// Awake is told when functions start. May be nil.
	Awake *awake.Keeper
	// Egress says what sandboxes with egress may reach. Name and State are the driver's to set.
	Egress egress.Config
	// Memory is the node's, in bytes; 0: unknown. It bounds a pool that sizes itself.
	Memory int64
}

func (c Config) withDefaults() Config {
	if c.ParentCgroup == "" {
		sum := sha256.Sum256([]byte(c.RunDir))
		c.ParentCgroup = "/tatami/" + hex.EncodeToString(sum[:5])
	}
	if c.NodeName == "" {
		c.NodeName = "local"
	}
	c.Egress.Name, c.Egress.State = c.RunDir, filepath.Join(c.RunDir, "egress")
	return c
}

func (c Config) validate() error {
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("DataDir %q is not absolute", c.DataDir)
	}
	if !filepath.IsAbs(c.RunDir) || filepath.Clean(c.RunDir) != c.RunDir {
		return fmt.Errorf("RunDir %q is not absolute and clean", c.RunDir)
	}
	if len(c.RunDir) > maxRunDir {
		return fmt.Errorf("RunDir %q is longer than %d bytes: the sockets under it would not fit", c.RunDir, maxRunDir)
	}
	if p := c.ParentCgroup; !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		return fmt.Errorf("ParentCgroup %q is not absolute, clean and below the root", p)
	}
	if c.SandboxPool != PoolAuto && (c.SandboxPool < 0 || c.SandboxPool > MaxPool) {
		return fmt.Errorf("SandboxPool %d is neither PoolAuto nor between 0 and %d", c.SandboxPool, MaxPool)
	}
	if n := c.Precreated; n != PoolAuto && (n < 0 || n > MaxPrecreated) {
		return fmt.Errorf("the number of precreated containers, %d, is neither PoolAuto nor between 0 and %d", n, MaxPrecreated)
	}
	return nil
}

// The places under RunDir and DataDir.
func (c Config) contentRoot() string  { return filepath.Join(c.DataDir, "containerd") }
func (c Config) engineState() string  { return filepath.Join(c.RunDir, "containerd") }
func (c Config) engineSocket() string { return filepath.Join(c.RunDir, "containerd.sock") }
func (c Config) shimSockets() string  { return filepath.Join(c.RunDir, "s") }
func (c Config) shimBinary() string   { return filepath.Join(c.RunDir, "bin", "containerd-shim-runc-v2") }
func (c Config) runcRoot() string     { return filepath.Join(c.RunDir, "runc") }
func (c Config) runscRoot() string    { return filepath.Join(c.RunDir, "runsc") }

// guests is where runsc keeps what it knows of its containers.
func (c Config) guests() string { return filepath.Join(c.runscRoot(), namespace) }

// runscScript lies under DataDir: nothing may be executed from /run on many machines.
func (c Config) runscScript() string { return filepath.Join(c.DataDir, "bin", "runsc") }

// noInput is an empty file.
func (c Config) noInput() string { return filepath.Join(c.DataDir, "bin", "no-input") }

func (c Config) scratchRoot() string { return filepath.Join(c.RunDir, "sandboxes") }
func (c Config) logRoot() string     { return filepath.Join(c.RunDir, "logs") }
func (c Config) mountRoot() string   { return filepath.Join(c.RunDir, "mnt") }
func (c Config) fifoRoot() string    { return filepath.Join(c.RunDir, "fifo") }
func (c Config) bundleRoot() string {
	return filepath.Join(c.engineState(), "io.containerd.runtime.v2.task", namespace)
}
func (c Config) workRoot() string {
	return filepath.Join(c.contentRoot(), "io.containerd.runtime.v2.task", namespace)
}

// attachments hold what a sandbox made ahead was given to run, as long as it exists; poolRoot is what such a sandbox has for a root before.
func (c Config) attachments() string         { return filepath.Join(c.RunDir, "attached") }
func (c Config) attachment(id string) string { return filepath.Join(c.attachments(), id) }
func (c Config) poolRoot() string            { return filepath.Join(c.RunDir, "pool") }

// exits hold how sandboxes of our own making ended: a file for each, empty while it runs.
func (c Config) exits() string         { return filepath.Join(c.RunDir, "exits") }
func (c Config) exit(id string) string { return filepath.Join(c.exits(), id) }

func (c Config) stdout(id string) string { return filepath.Join(c.logRoot(), id+".out") }
func (c Config) stderr(id string) string { return filepath.Join(c.logRoot(), id+".err") }
