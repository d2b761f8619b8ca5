package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
)

// What `tatami nomad` makes.
const (
	nomadWorkers = "workers"
	nomadServers = "servers"
	nomadPolicy  = "policy"
)

// nomadFlags are the flags of `tatami nomad`.
type nomadFlags struct {
	options       jobs.Options
	joinToken     string
	clusterSecret string
}

func (n *nomadFlags) flags(f *pflag.FlagSet) {
	o, w, s := &n.options, &n.options.Workers, &n.options.Servers
	f.StringSliceVar(&o.Datacenters, "datacenter", nil, "Nomad datacenters that the jobs may run in (default all)")
	f.StringVar(&o.Namespace, "nomad-namespace", "", "Nomad namespace that the jobs are in (default that of NOMAD_NAMESPACE, or \"default\")")
	f.StringVar(&o.Binary, "binary", "/usr/local/bin/tatami", "tatami on the nodes")
	f.StringVar(&o.Artifact, "artifact", "", "where Nomad fetches tatami from instead, such as https://HOST/tatami")
	f.StringVar(&o.Checksum, "checksum", "", "what the artifact must be, such as sha256:0a1b...")
	f.StringVar(&w.Job, "worker-job", "tatami-worker", "name of the job of the workers")
	f.IntVar(&w.Count, "count", 0, "workers to begin with (default the larger of 1 and --min)")
	f.IntVar(&w.Min, "min", 1, "the least workers that the servers scale to")
	f.IntVar(&w.Max, "max", 10, "the most workers that the servers scale to")
	f.IntVar(&w.Cores, "cores", 0, "whole processors of each worker (default 2)")
	f.IntVar(&w.CPU, "cpu-mhz", 0, "a share of the processors instead, in Nomad's MHz")
	f.IntVar(&w.Memory, "memory", 4096, "memory of each worker with all that it runs, in MiB")
	f.StringVar(&w.Join, "join", "", "where the servers let workers join, such as nats://10.0.0.1:4222 (default where the job of the servers runs)")
	f.StringVar(&w.DataDir, "worker-data-dir", "/var/lib/tatami-worker", "the workers' data directory, a fixed place on the nodes")
	f.StringVar(&w.RunDir, "worker-run-dir", "/run/tatami-worker", "the workers' run directory, a fixed place on the nodes")
	f.StringVar(&w.Listen, "worker-listen", "${attr.unique.network.ip-address}:0", "address at which gateways reach a worker's instances")
	f.DurationVar(&w.KillTimeout, "kill-timeout", 0, "how long a worker may take to end what runs; more than 30s needs max_kill_timeout on Nomad's clients (default 30s)")
	f.BoolVar(&w.Shared, "shared-nodes", false, "let several workers run on one node; their directories must then contain ${NOMAD_ALLOC_INDEX}")
	f.StringSliceVar(&w.NodeMeta, "node-meta", nil, "keys of the meta of Nomad's nodes that become labels of the workers there, such as zone,rack")
	f.StringArrayVar(&w.Flags, "worker-flag", nil, "a further flag of tatami worker, such as --worker-flag=--label=zone=a")
	f.StringVar(&s.Job, "server-job", "tatami", "name of the job of the servers")
	f.StringVar(&s.Cluster, "cluster", "tatami", "name of the cluster of servers")
	f.StringSliceVar(&s.Peers, "server-peers", nil, "addresses of the three or five machines that run servers (default the servers find each other as a service of Nomad's)")
	f.StringVar(&s.Public, "server-public", "0.0.0.0", "address at which the servers serve functions, without the port")
	f.StringVar(&s.DataDir, "server-data-dir", "/var/lib/tatami-server", "the servers' data directory, a fixed place on the nodes")
	f.StringVar(&s.RunDir, "server-run-dir", "/run/tatami", "the servers' run directory, a fixed place on the nodes")
	f.IntVar(&s.Count, "server-count", 0, "three or five servers, on as many nodes with the meta tatami_server = \"true\" (default 3)")
}

func newNomadCmd(a *app) *cobra.Command {
	return group("nomad", "Nomad jobs of workers and servers: render, plan, apply", newNomadRenderCmd(a), newNomadPlanCmd(a), newNomadApplyCmd(a))
}

func newNomadRenderCmd(a *app) *cobra.Command {
	var n nomadFlags
	cmd := &cobra.Command{
		Use: "render workers|servers|policy", Short: "Print a job as `nomad job run` reads it, or the policy of the servers", Args: argCount(1, 1, "workers|servers|policy"),
		ValidArgs: []string{nomadWorkers, nomadServers, nomadPolicy},
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == nomadPolicy {
				a.print("%s", jobs.Policy(n.namespace()))
				return nil
			}
			j, err := n.job(args[0])
			if err != nil {
				return err
			}
			if a.machine() {
				return a.encode(map[string]any{"Job": j})
			}
			return jobs.WriteHCL(a.stdout, j)
		},
	}
	n.flags(cmd.Flags())
	return cmd
}

func (n *nomadFlags) job(what string) (*jobs.Job, error) {
	n.options.Namespace = n.namespace()
	switch what {
	case nomadWorkers:
		if err := checkWorkerFlags(n.options.Workers.Flags); err != nil {
			return nil, err
		}
		return jobs.Worker(n.options)
	case nomadServers:
		return jobs.Server(n.options)
	}
	return nil, fault.New(fault.CodeInvalidRequest, "%.40q is none of %s and %s, nor, to render, %s", what, nomadWorkers, nomadServers, nomadPolicy).WithHint("tatami nomad --help")
}

// checkWorkerFlags refuses flags that `tatami worker` does not have: on every machine it would end at once. Their values are Nomad's to complete.
func checkWorkerFlags(flags []string) error {
	var cfg workerConfig
	known := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	cfg.flags(known)
	for _, f := range flags {
		name, _, _ := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if !strings.HasPrefix(f, "--") || known.Lookup(name) == nil {
			return fault.New(fault.CodeInvalidRequest, "--worker-flag: tatami worker has no flag %.80q", f).WithField("worker-flag").
				WithHint("one flag each, with its value: --worker-flag=--label=zone=a; tatami worker --help lists them")
		}
	}
	return nil
}

func (n *nomadFlags) namespace() string {
	return cmp.Or(n.options.Namespace, os.Getenv("NOMAD_NAMESPACE"))
}

// client reaches Nomad in the jobs' namespace.
func (n *nomadFlags) client() (*nomad.Client, error) {
	c, err := nomad.FromEnvironment()
	if err == nil {
		c.SetNamespace(n.namespace())
	}
	return c, err
}

func newNomadPlanCmd(a *app) *cobra.Command {
	var n nomadFlags
	cmd := &cobra.Command{
		Use: "plan workers|servers", Short: "Say what applying a job would change", Args: argCount(1, 1, "workers|servers"), ValidArgs: []string{nomadWorkers, nomadServers},
		Long: "Ask Nomad what a job would change, without changing anything. Nomad is found by NOMAD_ADDR and NOMAD_TOKEN, as its own command finds it.\n" +
			"How many workers there are is left to the servers.",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, p, err := n.plan(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showPlan(p)
		},
	}
	n.flags(cmd.Flags())
	return cmd
}

func (n *nomadFlags) plan(ctx context.Context, what string) (*jobs.Job, jobs.Plan, error) {
	j, err := n.job(what)
	if err != nil {
		return nil, jobs.Plan{}, err
	}
	c, err := n.client()
	if err != nil {
		return nil, jobs.Plan{}, err
	}
	p, err := jobs.PlanJob(ctx, c, j)
	if err != nil {
		return j, p, err
	}
	if s := n.secretOf(what); s.file == "" && jobs.Lacks(ctx, c, s.job, s.item) {
		p.Lacks = fmt.Sprintf("the variable %s has no %s, for which the tasks wait: apply with --%s FILE", jobs.Variable(s.job), s.item, s.flag)
	}
	return j, p, nil
}

func (a *app) showPlan(p jobs.Plan) error {
	fields := []field{{"job", p.Job}, {"change", p.Change}}
	if p.Unplaced {
		fields = append(fields, field{"place", "none for some of it: no node has what it needs"})
		for _, why := range p.Why {
			fields = append(fields, field{"", why})
		}
	}
	if p.Lacks != "" {
		fields = append(fields, field{"lacks", p.Lacks})
	}
	if p.Warnings != "" {
		fields = append(fields, field{"nomad says", p.Warnings})
	}
	return show(a, p, p.Job, fields)
}

func newNomadApplyCmd(a *app) *cobra.Command {
	var n nomadFlags
	cmd := &cobra.Command{
		Use: "apply workers|servers", Short: "Make or change a job, if it is still what it was when planned", Args: argCount(1, 1, "workers|servers"), ValidArgs: []string{nomadWorkers, nomadServers},
		Long: "Store the job's secret in its Nomad variable where one is given, plan the job, and make it what was planned. For servers the policy that lets\n" +
			"them scale the workers is made too, and attached to their job.",
		Example: "  tatami nomad apply workers --join nats://10.0.0.1:4222 --join-token /var/lib/tatami/worker.token --max 20\n" +
			"  tatami nomad apply servers --cluster-secret cluster.secret",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := n.prepare(cmd.Context(), args[0]); err != nil {
				return err
			}
			j, p, err := n.plan(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			c, err := n.client()
			if err != nil {
				return err
			}
			if err := jobs.Apply(cmd.Context(), c, j, p); err != nil {
				return err
			}
			a.talk("how it goes: nomad job status %s\n", p.Job)
			return a.showPlan(p)
		},
	}
	n.flags(cmd.Flags())
	cmd.Flags().StringVar(&n.joinToken, "join-token", "", "file with the token with which workers join, "+bus.WorkerTokenFile+" in the servers' data directory; it goes into the job's variable")
	cmd.Flags().StringVar(&n.clusterSecret, "cluster-secret", "", "file with what the servers have in common; it goes into the job's variable")
	return cmd
}

// prepare stores what the job's tasks need to find.
func (n *nomadFlags) prepare(ctx context.Context, what string) error {
	c, err := n.client()
	if err != nil {
		return err
	}
	if what == nomadServers {
		if _, err := n.job(what); err != nil {
			return err
		}
		if err := jobs.ApplyPolicy(ctx, c, n.namespace(), n.options.Servers.Job); err != nil {
			return err
		}
	}
	s := n.secretOf(what)
	if s.file == "" {
		return nil
	}
	text, err := os.ReadFile(s.file)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "--%s: it cannot be read", s.flag).WithField(s.flag)
	}
	if err := s.check(text); err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "--%s: %s holds none", s.flag, s.file).WithField(s.flag)
	}
	if err := jobs.StoreSecret(ctx, c, s.job, s.item, strings.TrimSpace(string(text))); err != nil {
		return fmt.Errorf("storing the secret: %w", err)
	}
	return nil
}

// nomadSecret is what the tasks of a job find in its variable.
type nomadSecret struct {
	file, flag, job, item string
	// check tells what is none.
	check func([]byte) error
}

func (n *nomadFlags) secretOf(what string) nomadSecret {
	if what == nomadServers {
		return nomadSecret{n.clusterSecret, "cluster-secret", n.options.Servers.Job, "cluster_secret", func(text []byte) error {
			_, err := pki.ParseAuthority(text)
			return err
		}}
	}
	return nomadSecret{n.joinToken, "join-token", n.options.Workers.Job, "token", func(text []byte) error { return bus.CheckToken(string(text)) }}
}
