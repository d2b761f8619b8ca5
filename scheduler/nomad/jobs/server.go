package jobs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Server returns the job of the servers, each on a machine of its own, which must be nodes with the meta tatami_server = "true".
func Server(o Options) (*api.Job, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &o.Servers
	if err := s.checkPeers(); err != nil {
		return nil, err
	}
	at := func(port int) string { return fmt.Sprintf("${attr.unique.network.ip-address}:%d", port) }
	t := o.task("server", slices.Concat([]string{"server", "--cluster", s.Cluster}, s.peers(), []string{
		"--cluster-listen", at(clusterPort), "--relay-listen", at(relayPort),
		"--nats-listen", at(natsPort), "--public-addr", fmt.Sprintf("%s:%d", s.Public, publicPort), "--control-addr", "",
		"--cluster-secret", "${NOMAD_SECRETS_DIR}/cluster.secret", "--data-dir", s.DataDir, "--run-dir", s.RunDir, "--node-name", "${node.unique.name}",
		"--nomad-job", o.Workers.Job, "--log-format", "json",
	}))
	t.KillTimeout, t.KillSignal = ptr(30*time.Second), "SIGTERM"
	t.Resources = &api.Resources{CPU: &s.CPU, MemoryMB: &s.Memory}
	// The task's own token, with the policy that is attached to the job, at the agent's socket in the task.
	t.Identities = []*api.WorkloadIdentity{{Env: true}}
	t.Env = map[string]string{"NOMAD_ADDR": "unix://${NOMAD_SECRETS_DIR}/api.sock"}
	t.Templates = []*api.Template{secret(s.Job, "cluster_secret", "cluster.secret")}
	g := api.NewTaskGroup("server", s.Count).AddTask(t)
	g.Constrain(&api.Constraint{Operand: api.ConstraintDistinctHosts, RTarget: "true"})
	g.Constrain(&api.Constraint{LTarget: "${meta." + serverMeta + "}", RTarget: "true", Operand: "="})
	g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{
		{Label: "http", Value: publicPort}, {Label: "nats", Value: natsPort}, {Label: "cluster", Value: clusterPort}, {Label: "relay", Value: relayPort},
	}}}
	check := api.ServiceCheck{Name: "ready", Type: "http", Path: "/readyz", PortLabel: "http", Interval: 5 * time.Second, Timeout: 2 * time.Second}
	g.Services = []*api.Service{
		{Name: "tatami-http", PortLabel: "http", Provider: "nomad", Checks: []api.ServiceCheck{check}},
		{Name: joinService, PortLabel: "nats", Provider: "nomad"},
		{Name: peerService, PortLabel: "cluster", Provider: "nomad"},
	}
	g.RestartPolicy = &api.RestartPolicy{Attempts: ptr(10), Interval: ptr(5 * time.Minute), Delay: ptr(time.Second), Mode: ptr(api.RestartPolicyModeDelay)}
	// Its data lies on its own machine: a server is not replaced elsewhere while its machine is away.
	g.Disconnect = &api.DisconnectStrategy{LostAfter: ptr(time.Hour), Replace: ptr(false), Reconcile: ptr(api.ReconcileOptionKeepOriginal)}
	g.ShutdownDelay = ptr(2 * time.Second)
	// Most of the servers must run at any time: the next one is changed when this one is ready.
	g.Update = &api.UpdateStrategy{
		MaxParallel: ptr(1), HealthCheck: ptr("checks"), MinHealthyTime: ptr(10 * time.Second), HealthyDeadline: ptr(5 * time.Minute), ProgressDeadline: ptr(10 * time.Minute), AutoRevert: ptr(true),
	}
	g.Migrate = &api.MigrateStrategy{MaxParallel: ptr(1), HealthCheck: ptr("checks"), MinHealthyTime: ptr(10 * time.Second), HealthyDeadline: ptr(5 * time.Minute)}
	j := api.NewServiceJob(s.Job, s.Job, "", 80)
	j.Region, j.Datacenters = nil, o.Datacenters
	o.place(j)
	return j.AddTaskGroup(g), nil
}

// peers are the flags that say who the servers are.
func (s *ServerOptions) peers() []string {
	if len(s.Peers) == 0 {
		return []string{"--peers-service", peerService, "--peers-count", strconv.Itoa(s.Count)}
	}
	var at []string
	for _, p := range s.Peers {
		at = append(at, fmt.Sprintf("%s:%d", p, clusterPort))
	}
	return []string{"--peers", strings.Join(at, ",")}
}

// Policy is what the servers' own token must be allowed in a namespace: to see the job of the workers and the nodes, and to scale. It does not let them drain nodes.
func Policy(namespace string) string {
	return fmt.Sprintf(`# What the servers of Tatami need: to see the job of their workers and its nodes, and to scale it.
namespace %q {
  capabilities = ["list-jobs", "read-job", "scale-job"]
}

node {
  policy = "read"
}
`, cmp.Or(namespace, DefaultNamespace))
}
