package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/heap"
	"github.com/tatami-faas/tatami/internal/obs"
	"github.com/tatami-faas/tatami/internal/procs"
	"github.com/tatami-faas/tatami/runtime/containerd"
	"github.com/tatami-faas/tatami/runtime/egress"
	"github.com/tatami-faas/tatami/worker"
	"github.com/tatami-faas/tatami/worker/meter"
)

// nodeConfig is what `tatami up` and `tatami worker` have in common: a process with directories of its own that runs instances.
type nodeConfig struct {
	Config            string
	DataDir, RunDir   string
	ContainerdAddress string
	NodeName          string
	Labels            map[string]string
	// Capacity is what whoever runs this process gave it, field by field; zero: the machine's. It is no flag.
	Capacity       functions.Resources
	GrantCPU       int64
	GrantMemory    int64
	ReserveCPU     int64
	ReserveMemory  int64
	HeapTarget     int64
	MaxInstances   int64
	SandboxPool    int
	Precreated     int
	FreezeAfter    time.Duration
	DrainTimeout   time.Duration
	KeepInstances  bool
	LogLevel       string
	LogFormat      string
	DockerConfig   string
	UserNamespaces bool
	GVisor         bool
	StayAwake      string
	// keeper is StayAwake's, and keptAwake what is told of it, from keepAwake on.
	keeper      *awake.Keeper
	keptAwake   string
	EgressRange string
	EgressAllow []string
	EgressDNS   []string
}

// leastHeapTarget is what a process needs to do anything else than collect garbage.
const leastHeapTarget = 64 * functions.MiB

// places are where a process of a verb keeps its things unless it is told otherwise.
type places struct{ config, data, run string }

func (c *nodeConfig) flags(f *pflag.FlagSet, p places) {
	host, err := os.Hostname()
	if err != nil || functions.ValidateNodeName("node-name", host) != nil {
		host = "node"
	}
	f.StringVar(&c.Config, "config", "", "config file; keys are these flags' names (default "+p.config+" if it exists)")
	f.StringVar(&c.DataDir, "data-dir", p.data, "directory of everything that must survive")
	f.StringVar(&c.RunDir, "run-dir", p.run, "directory of sockets and running sandboxes; short, on tmpfs if possible")
	f.StringVar(&c.ContainerdAddress, "containerd-address", "", "socket of a containerd to use instead of the embedded one")
	f.StringVar(&c.NodeName, "node-name", host, "this machine's name, for people")
	f.StringToStringVar(&c.Labels, "label", nil, "labels of this node, such as zone=a; functions may ask for them")
	f.Var((*milliValue)(&c.GrantCPU), "grant-cpu", "processor time that functions may take, such as 1500m; more than the machine has lets them share it (default the machine's less the reserve)")
	f.Var((*bytesValue)(&c.GrantMemory), "grant-memory", "memory that functions may take, such as 2Gi (default the machine's less the reserve)")
	f.Var((*milliValue)(&c.ReserveCPU), "reserve-cpu", "processor time kept from functions, such as 200m (default a tenth of the machine)")
	f.Var((*bytesValue)(&c.ReserveMemory), "reserve-memory", "memory kept from functions, such as 1Gi (default a tenth of the machine, at least 512Mi)")
	f.Var((*bytesValue)(&c.HeapTarget), "heap-target", "memory that this process itself should stay within, such as 1Gi; far below it garbage is collected seldom "+
		"(default a thirteenth of what the machine or the cgroup has, at least 384Mi; GOGC and GOMEMLIMIT go first)")
	f.Int64Var(&c.MaxInstances, "max-instances", 500, "instances on this machine")
	f.BoolVar(&c.UserNamespaces, "user-namespaces", true, "run images that ask for root as root of a user namespace, where this machine can; else as user 65532")
	f.BoolVar(&c.GVisor, "gvisor", true, "run functions that ask for gVisor, where runsc is installed; else they go to other nodes")
	f.StringVar(&c.StayAwake, "stay-awake", awake.Auto, "when the processors of this machine do not sleep: calls (while calls go through, and functions start), starts, never, or auto (calls on small virtual machines whose kernel does not see to it)")
	f.StringVar(&c.EgressRange, "egress-range", egress.DefaultRange, "private network, /16 to /24, whose addresses functions with egress get on this machine")
	f.StringSliceVar(&c.EgressAllow, "egress-allow", nil, "private networks that functions with egress may reach too, such as 10.1.0.0/16")
	f.StringSliceVar(&c.EgressDNS, "egress-dns", nil, "nameservers of functions with egress (default this machine's)")
	f.DurationVar(&c.FreezeAfter, "freeze-after", 30*time.Second, "how long an instance stays idle before it is frozen, where its function does not say; 0 freezes none")
	c.SandboxPool = containerd.PoolAuto
	c.Precreated = containerd.PoolAuto
	f.Var(&countValue{&c.Precreated, containerd.MaxPrecreated}, "precreated", "containers kept made ahead for the latest functions that cannot start in those sandboxes: auto (at most 8, and 2% of the memory), a number, or 0")
	f.Var(&countValue{&c.SandboxPool, containerd.MaxPool}, "sandbox-pool", "sandboxes kept made ahead, for cold starts in a few milliseconds: auto (by the starts of late, at most 4% of the memory), a number, or 0")
	f.DurationVar(&c.DrainTimeout, "drain-timeout", 30*time.Second, "how long running invocations may take to end when the process stops")
	f.BoolVar(&c.KeepInstances, "keep-instances", false, "leave instances running when the process stops, for the next one to adopt")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "", "text or json (default text on a terminal, else json)")
	f.StringVar(&c.DockerConfig, "docker-config", "", "directory of the docker config.json with registry credentials (default DOCKER_CONFIG or ~/.docker)")
}

func (c *nodeConfig) validate() error {
	for name, dir := range map[string]*string{"data-dir": &c.DataDir, "run-dir": &c.RunDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil || *dir == "" {
			return fault.New(fault.CodeInvalidRequest, "--%s: %q is no directory's name", name, *dir).WithField(name)
		}
		*dir = abs
	}
	if err := functions.ValidateNodeName("node-name", c.NodeName); err != nil {
		return err
	}
	if c.ReserveCPU < 0 || c.ReserveCPU >= int64(runtime.NumCPU())*1000 {
		return fault.New(fault.CodeInvalidRequest, "--reserve-cpu: %dm leaves nothing of %d cores", c.ReserveCPU, runtime.NumCPU()).WithField("reserve-cpu")
	}
	if c.HeapTarget != 0 && c.HeapTarget < leastHeapTarget {
		return fault.New(fault.CodeInvalidRequest, "--heap-target: %d MiB is less than %d MiB", c.HeapTarget/functions.MiB, leastHeapTarget/functions.MiB).WithField("heap-target")
	}
	if c.MaxInstances < 1 || c.MaxInstances > 100_000 {
		return fault.New(fault.CodeInvalidRequest, "--max-instances: %d is not between 1 and 100000", c.MaxInstances).WithField("max-instances")
	}
	if _, err := c.egress(); err != nil {
		return err
	}
	if _, _, err := awake.Choose(c.StayAwake, awake.Machine{}); err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "--stay-awake").WithField("stay-awake")
	}
	if c.FreezeAfter < 0 {
		return fault.New(fault.CodeInvalidRequest, "--freeze-after: %s is negative", c.FreezeAfter).WithField("freeze-after")
	}
	if c.DrainTimeout < 0 {
		return fault.New(fault.CodeInvalidRequest, "--drain-timeout: %s is negative", c.DrainTimeout).WithField("drain-timeout")
	}
	return nil
}

// load completes the flags from the environment and the config file.
func (c *nodeConfig) load(cmd *cobra.Command, p places) error {
	file, named := c.Config, true
	if file == "" {
		file, named = p.config, os.Getenv("TATAMI_CONFIG") != ""
		if named {
			file = os.Getenv("TATAMI_CONFIG")
		}
	}
	return applySettings(cmd.LocalFlags(), file, named)
}

// settle completes what the flags of a command say by environment and file, checks it, and returns the log that it asks for.
func settle(cmd *cobra.Command, c interface {
	load(cmd *cobra.Command, p places) error
	validate() error
	logger(w io.Writer) (*slog.Logger, error)
}, p places, stderr io.Writer,
) (*slog.Logger, error) {
	if err := c.load(cmd, p); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c.logger(stderr)
}

func (c *nodeConfig) logger(w io.Writer) (*slog.Logger, error) {
	return obs.NewLogger(w, obs.LogConfig{Level: c.LogLevel, Format: c.LogFormat})
}

// setRuntime sets the collector and the threads of this process.
func (c *nodeConfig) setRuntime(log *slog.Logger) {
	target := c.HeapTarget
	if target == 0 {
		target = heap.Target(heap.Memory(os.DirFS("/")))
	}
	heap.Choose(target, os.Getenv).Apply(log)
	procs.Apply(procs.Choose(runtime.GOMAXPROCS(0), os.Getenv), log)
}

// keepAwake makes the keeper of the processors; the function returned ends it, when nothing uses it any more.
func (c *nodeConfig) keepAwake(log *slog.Logger) (end func()) {
	policy, why, err := awake.Choose(c.StayAwake, awake.Look(os.DirFS("/")))
	c.keeper = awake.New(policy)
	if err == nil {
		err = c.keeper.Open(awake.LatencyFile)
	}
	c.keptAwake = fmt.Sprintf("stay awake: %s; %s", policy, why)
	if err != nil {
		c.keptAwake = fmt.Sprintf("may sleep while functions start and calls go through: %v", err)
		log.Info("processors may sleep while functions start and calls go through", "err", err)
	}
	return c.keeper.Close
}

// makeDirs makes the directories. The control socket in the run directory has a mode of its own: others must get as far as the socket.
func (c *nodeConfig) makeDirs() error {
	for dir, mode := range map[string]os.FileMode{c.DataDir: 0o700, c.RunDir: 0o711} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fault.Wrap(fault.CodeDenied, err, "the directory cannot be made").WithHint("run as root, or name others with --data-dir and --run-dir")
		}
	}
	return nil
}

// announceStop tells when ctx ends what happens then; the function returned ends that.
func (c *nodeConfig) announceStop(ctx context.Context, log *slog.Logger) (end func() bool) {
	return context.AfterFunc(ctx, func() {
		log.Info("stopping: what runs may end; a second Ctrl-C ends at once, and the next start adopts the instances", "timeout", functions.Duration(c.DrainTimeout).String())
	})
}

func (c *nodeConfig) worker(node functions.NodeID) worker.Config {
	freezeAfter := c.FreezeAfter
	if freezeAfter == 0 {
		freezeAfter = -1
	}
	return worker.Config{
		Node: node, Name: c.NodeName, Labels: c.Labels, DataDir: c.DataDir, RunDir: c.RunDir, MaxInstances: c.MaxInstances,
		Capacity:     c.Capacity,
		Grant:        functions.Resources{CPU: c.GrantCPU, Memory: c.GrantMemory},
		Reserve:      functions.Resources{CPU: c.ReserveCPU, Memory: c.ReserveMemory},
		DrainTimeout: c.DrainTimeout, KeepInstances: c.KeepInstances,
		FreezeAfter: freezeAfter, Awake: c.keeper,
		Waiting: containerd.PoolCost(c.SandboxPool, c.memory()).Add(containerd.PrecreatedMost(c.Precreated, c.memory())),
	}
}

// memory is what bounds a pool that sizes itself: the grant, or what the process has; 0 where that cannot be read.
func (c *nodeConfig) memory() int64 {
	if given := cmp.Or(c.GrantMemory, c.Capacity.Memory); given > 0 {
		return given
	}
	_, memory, err := meter.NewMachine("").Capacity()
	if err != nil {
		return 0
	}
	return memory
}

// driver makes the sandbox driver of a worker; cgroup is the name of the one above its sandboxes, which no other process on the machine uses.
func (c *nodeConfig) driver(w worker.Config, cgroup string, blobs containerd.BlobSource, log *slog.Logger) (*containerd.Driver, error) {
	_, allocatable, err := w.Resources()
	if err != nil {
		return nil, err
	}
	out, err := c.egress()
	if err != nil {
		return nil, err
	}
	return containerd.New(containerd.Config{
		DataDir: c.DataDir, RunDir: c.RunDir, Address: c.ContainerdAddress, ParentCgroup: "/" + cgroup,
		NodeName: string(w.Node), Allocatable: allocatable, DockerConfig: c.DockerConfig, SandboxPool: c.SandboxPool, Precreated: c.Precreated, Memory: c.memory(),
		Egress: out, UserNamespaces: c.UserNamespaces, GVisor: c.GVisor, Awake: c.keeper,
	}, blobs, log)
}

// egress reads the flags about egress.
func (c *nodeConfig) egress() (egress.Config, error) {
	var out egress.Config
	bad := func(name string, err error) error {
		return fault.Wrap(fault.CodeInvalidRequest, err, "--%s", name).WithField(name)
	}
	var err error
	if out.Range, err = netip.ParsePrefix(c.EgressRange); err != nil {
		return out, bad("egress-range", err)
	}
	for _, s := range c.EgressAllow {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return out, bad("egress-allow", err)
		}
		out.Allow = append(out.Allow, p)
	}
	for _, s := range c.EgressDNS {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return out, bad("egress-dns", err)
		}
		out.DNS = append(out.DNS, a)
	}
	return out, out.Validate()
}

// cgroupName makes a name for a cgroup of a node's name.
func cgroupName(node string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, node)
	return "tatami-" + name[:min(len(name), 60)]
}

// countValue is how many of something are kept made ahead: a number, or auto.
type countValue struct {
	n    *int
	most int
}

func (c *countValue) Type() string { return "size" }

func (c *countValue) String() string {
	if c.n == nil || *c.n == containerd.PoolAuto {
		return "auto"
	}
	return strconv.Itoa(*c.n)
}

func (c *countValue) Set(s string) error {
	if s == "auto" {
		*c.n = containerd.PoolAuto
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > c.most {
		return fmt.Errorf("want auto, or a number between 0 and %d", c.most)
	}
	*c.n = n
	return nil
}

// poolSample tells the metrics of the pool.
func poolSample(p containerd.PoolState) obs.PoolSample {
	out := obs.PoolSample{Waiting: p.Waiting, Wanted: p.Wanted, Linked: p.Linked, LinkedWanted: p.LinkedWanted, Precreated: p.Precreated}
	for start, n := range p.Starts {
		out.Starts = append(out.Starts, obs.StartSample{Path: start.Path, Reason: start.Reason, Count: n})
	}
	return out
}
