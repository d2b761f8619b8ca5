package jobs

import (
	"cmp"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Options say what the jobs are to be. A zero field stands for its default.
type Options struct {
	// Datacenters are where the jobs may run. Default all.
	Datacenters []string
	// Namespace is Nomad's in which the jobs are. Default "default".
	Namespace string
	// Binary is tatami on the nodes; Artifact is where Nomad fetches it from instead, with its Checksum. Default /usr/local/bin/tatami.
	Binary, Artifact, Checksum string
	Workers                    WorkerOptions
	Servers                    ServerOptions
}

// WorkerOptions say what the job of the workers is to be.
type WorkerOptions struct {
	// Job is its name. Default "tatami-worker".
	Job string
	// Count is how many workers it begins with, Min and Max bound what the servers make of it. Default the larger of 1 and Min, 0, 10.
	Count, Min, Max int
	// Cores are whole processors for each worker; or CPU is a share in MHz. Default 2 cores.
	Cores, CPU int
	// Memory is in MiB. Default 4096.
	Memory int
	// Join is where the servers let workers join. Default: wherever the job of the servers runs.
	Join string
	// DataDir and RunDir are fixed places on the node: instances outlive the task, and the next worker there adopts or ends them. Default /var/lib/tatami-worker
	// and /run/tatami-worker.
	DataDir, RunDir string
	// Listen is the address at which gateways reach the instances. Default the node's own, at a free port.
	Listen string
	// KillTimeout is how long a worker may take to end what runs. Nomad's clients allow 30 s unless they are told otherwise. Default 30s.
	KillTimeout time.Duration
	// Shared lets several workers run on one node; their directories must differ then.
	Shared bool
	// NodeMeta are keys of the meta of Nomad's nodes that become labels of the workers there, where the node has them.
	NodeMeta []string
	// Flags are further flags of `tatami worker`.
	Flags []string
}

// ServerOptions say what the job of the servers is to be.
type ServerOptions struct {
	// Job is its name. Default "tatami".
	Job string
	// Cluster is the cluster's name. Default "tatami".
	Cluster string
	// Peers are the addresses of the machines that run the servers, three or five. Default: the servers find each other as a service of Nomad's.
	Peers []string
	// Count is how many servers there are where Peers are not given, three or five. Default 3.
	Count int
	// Memory is in MiB, CPU in MHz. Default 2048 and 1000.
	Memory, CPU int
	// Public is the address at which functions are served, without its port. Default 0.0.0.0.
	Public string
	// DataDir and RunDir are fixed places on the node. Default /var/lib/tatami-server and /run/tatami.
	DataDir, RunDir string
}

// The ports of the servers, on every one of their machines.
const (
	publicPort  = 8080
	natsPort    = 4222
	clusterPort = 6222
	relayPort   = 6223
)

const (
	// joinService is the service by which workers find the servers.
	joinService = "tatami-nats"
	// peerService is the service by which servers find each other.
	peerService = "tatami-cluster"
	// serverMeta marks the nodes that run servers.
	serverMeta = "tatami_server"
)

// DefaultNamespace is Nomad's where none is named.
const DefaultNamespace = "default"

// metaKey is what a key of a node's meta is made of.
var metaKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// checksum is what Nomad takes for that of an artifact, and jobName what may stand in the path of a variable of Nomad's, as a job's name does.
var (
	checksum = regexp.MustCompile(`^(md5:[0-9A-Fa-f]{32}|sha1:[0-9A-Fa-f]{40}|sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128})$`)
	jobName  = regexp.MustCompile(`^[A-Za-z0-9_~/-]{1,100}$`)
)

func (o Options) withDefaults() Options {
	if len(o.Datacenters) == 0 {
		o.Datacenters = []string{"*"}
	}
	o.Namespace = cmp.Or(o.Namespace, DefaultNamespace)
	o.Binary = cmp.Or(o.Binary, "/usr/local/bin/tatami")
	w := &o.Workers
	w.Job = cmp.Or(w.Job, "tatami-worker")
	w.Max = cmp.Or(w.Max, 10)
	w.Count = cmp.Or(w.Count, max(1, w.Min))
	if w.Cores == 0 && w.CPU == 0 {
		w.Cores = 2
	}
	w.Memory = cmp.Or(w.Memory, 4096)
	w.DataDir, w.RunDir = cmp.Or(w.DataDir, "/var/lib/tatami-worker"), cmp.Or(w.RunDir, "/run/tatami-worker")
	w.Listen = cmp.Or(w.Listen, "${attr.unique.network.ip-address}:0")
	w.KillTimeout = cmp.Or(w.KillTimeout, 30*time.Second)
	s := &o.Servers
	s.Job, s.Cluster = cmp.Or(s.Job, "tatami"), cmp.Or(s.Cluster, "tatami")
	s.Public = cmp.Or(s.Public, "0.0.0.0")
	s.Count = cmp.Or(s.Count, 3)
	if len(s.Peers) > 0 {
		s.Count = len(s.Peers)
	}
	s.Memory, s.CPU = cmp.Or(s.Memory, 2048), cmp.Or(s.CPU, 1000)
	s.DataDir, s.RunDir = cmp.Or(s.DataDir, "/var/lib/tatami-server"), cmp.Or(s.RunDir, "/run/tatami")
	return o
}

func (o *Options) validate() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.CodeInvalidRequest, "--"+field+": "+format, args...).WithField(field)
	}
	w := &o.Workers
	switch {
	case w.Min < 0 || w.Max < 1 || w.Max > 10_000 || w.Min > w.Max:
		return bad("max", "%d to %d are no bounds: the least is 0, the most 10000", w.Min, w.Max)
	case w.Count < w.Min || w.Count > w.Max:
		return bad("count", "%d is not between %d and %d", w.Count, w.Min, w.Max)
	case w.Cores < 0 || w.CPU < 0:
		return bad("cores", "%d processors, and --cpu-mhz %d: neither can be less than nothing", w.Cores, w.CPU)
	case w.Cores > 0 && w.CPU > 0:
		return bad("cores", "give whole processors, or a share of them with --cpu-mhz, not both")
	case w.Memory < 512:
		return bad("memory", "%d MiB are less than 512 MiB, which the worker itself needs", w.Memory)
	case w.KillTimeout < 5*time.Second:
		return bad("kill-timeout", "%s is less than 5s", w.KillTimeout)
	case slices.ContainsFunc(w.NodeMeta, func(key string) bool { return !metaKey.MatchString(key) }):
		return bad("node-meta", "%.80q are no keys of a node's meta: letters, digits, and . _ - within", w.NodeMeta)
	case o.Artifact != "" && o.Checksum == "":
		return bad("checksum", "say what the artifact must be, such as sha256:0a1b…")
	case o.Artifact == "" && o.Checksum != "":
		return bad("checksum", "there is no --artifact of which it would be")
	case o.Checksum != "" && !checksum.MatchString(o.Checksum):
		return bad("checksum", "%.80q is none of those that Nomad knows, such as sha256: with 64 digits", o.Checksum)
	case !jobName.MatchString(w.Job):
		return bad("worker-job", "%.80q cannot be the name of a job with a variable: letters, digits, and - _ ~ /", w.Job)
	case !jobName.MatchString(o.Servers.Job):
		return bad("server-job", "%.80q cannot be the name of a job with a variable: letters, digits, and - _ ~ /", o.Servers.Job)
	case w.Shared && !ofAllocation(w.DataDir):
		return bad("worker-data-dir", "several workers on one node would have %s; name it by the allocation, such as %s", w.DataDir, w.DataDir+"-${NOMAD_ALLOC_INDEX}")
	case w.Shared && !ofAllocation(w.RunDir):
		return bad("worker-run-dir", "several workers on one node would have %s; name it by the allocation, such as %s", w.RunDir, w.RunDir+"-${NOMAD_ALLOC_INDEX}")
	}
	for _, at := range strings.Split(w.Join, ",") {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(at, "nats://"))
		if n, nerr := strconv.ParseUint(port, 10, 16); w.Join != "" && (err != nil || nerr != nil || n == 0 || host == "") {
			return bad("join", "%.80q is no address such as nats://10.0.0.1:4222", at)
		}
	}
	return functions.ValidateName("cluster", o.Servers.Cluster)
}

// ofAllocation reports whether a directory is another one for each allocation.
func ofAllocation(dir string) bool { return strings.Contains(dir, "${NOMAD_") }

// checkPeers refuses what are no three or five machines.
func (s *ServerOptions) checkPeers() error {
	if s.Count != 3 && s.Count != 5 {
		field, hint := "server-count", "leave it out for three servers"
		if len(s.Peers) > 0 {
			field, hint = "server-peers", "name the addresses of their machines, or none: they find each other then"
		}
		return fault.New(fault.CodeInvalidRequest, "--%s: %d machines, and three or five servers make a cluster", field, s.Count).WithField(field).WithHint("%s", hint)
	}
	for _, p := range s.Peers {
		if net.ParseIP(p) == nil || strings.Contains(p, ":") {
			return fault.New(fault.CodeInvalidRequest, "--server-peers: %.80q is no IPv4 address", p).WithField("server-peers")
		}
	}
	return nil
}
