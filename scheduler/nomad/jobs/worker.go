package jobs

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/scheduler/nomad"
)

// drainMargin is what of the kill timeout is left for the end itself, when all that ran has ended or was ended.
const drainMargin = 8 * time.Second

// noop leaves a task alone when what a template is made of changes.
const noop = "noop"

// Worker returns the job of the workers.
func Worker(o Options) (*api.Job, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	w := &o.Workers
	t := o.task("worker", append([]string{
		"worker", "--token-file", "${NOMAD_SECRETS_DIR}/worker.token", "--data-dir", w.DataDir, "--run-dir", w.RunDir, "--listen", w.Listen,
		"--node-name", "${node.unique.name}", "--drain-timeout", max(w.KillTimeout-drainMargin, time.Second).String(), "--log-format", "json",
	}, w.Flags...))
	t.KillTimeout, t.KillSignal = &w.KillTimeout, "SIGTERM"
	t.Resources = &api.Resources{MemoryMB: &w.Memory}
	if w.Cores > 0 {
		t.Resources.Cores = &w.Cores
	} else {
		t.Resources.CPU = &w.CPU
	}
	// With a share of the processors a worker must know of what.
	t.Env = map[string]string{nomad.EnvCompute: "${attr.cpu.totalcompute}"}
	if len(w.NodeMeta) > 0 {
		var lines []string
		for _, key := range w.NodeMeta {
			lines = append(lines, nomad.MetaLine(key))
		}
		t.Env[nomad.EnvMeta] = strings.Join(lines, "\n")
	}
	t.Templates = []*api.Template{secret(w.Job, "token", "worker.token")}
	if w.Join != "" {
		t.Env["TATAMI_JOIN"] = w.Join
	} else {
		t.Templates = append(t.Templates, &api.Template{
			EmbeddedTmpl: ptr(fmt.Sprintf("TATAMI_JOIN={{ range $i, $s := nomadService %q }}{{ if $i }},{{ end }}nats://{{ .Address }}:{{ .Port }}{{ end }}\n", joinService)),
			DestPath:     ptr("secrets/join.env"), Envvars: ptr(true), ChangeMode: ptr(noop),
		})
	}
	g := api.NewTaskGroup(nomad.DefaultGroup, w.Count).AddTask(t).AddTask(o.sweep())
	g.Scaling = &api.ScalingPolicy{Enabled: ptr(true), Min: ptr(int64(w.Min)), Max: ptr(int64(w.Max))}
	if !w.Shared {
		g.Constrain(&api.Constraint{Operand: api.ConstraintDistinctHosts, RTarget: "true"})
	}
	g.RestartPolicy = &api.RestartPolicy{Attempts: ptr(10), Interval: ptr(5 * time.Minute), Delay: ptr(time.Second), Mode: ptr(api.RestartPolicyModeDelay)}
	// The scheduler replaces instances seconds after a worker is silent, Nomad the worker when it misses its node; one that is back within a minute goes on
	// as it was. Without replace Nomad would wait for the node for ever.
	g.Disconnect = &api.DisconnectStrategy{LostAfter: ptr(time.Minute), Replace: ptr(true), Reconcile: ptr(api.ReconcileOptionKeepOriginal)}
	// A worker that is stopped hands its instances over first: one at a time, and the next only when it is back.
	g.Update = &api.UpdateStrategy{MaxParallel: ptr(1), HealthCheck: ptr("task_states"), MinHealthyTime: ptr(5 * time.Second), HealthyDeadline: ptr(3 * time.Minute), ProgressDeadline: ptr(10 * time.Minute)}
	g.Migrate = &api.MigrateStrategy{MaxParallel: ptr(1), HealthCheck: ptr("task_states"), MinHealthyTime: ptr(5 * time.Second), HealthyDeadline: ptr(3 * time.Minute)}
	j := api.NewServiceJob(w.Job, w.Job, "", 50)
	j.Region, j.Priority, j.Datacenters = nil, nil, o.Datacenters
	o.place(j)
	return j.AddTaskGroup(g), nil
}

// place puts a job into its namespace; the default one needs no word.
func (o *Options) place(j *api.Job) {
	if o.Namespace != DefaultNamespace {
		j.Namespace = &o.Namespace
	}
}

// sweep is the task that ends what a worker has left that could not end it itself.
func (o *Options) sweep() *api.Task {
	w := &o.Workers
	t := o.task("sweep", append([]string{
		"worker", "--sweep", "--data-dir", w.DataDir, "--run-dir", w.RunDir, "--node-name", "${node.unique.name}", "--log-format", "json",
	}, w.Flags...))
	t.Lifecycle = &api.TaskLifecycle{Hook: api.TaskLifecycleHookPoststop}
	t.Resources = &api.Resources{CPU: ptr(100), MemoryMB: ptr(256)}
	return t
}

// task makes a task that runs tatami as root, as it must to make containers.
func (o *Options) task(name string, args []string) *api.Task {
	t := api.NewTask(name, "raw_exec")
	command := o.Binary
	if o.Artifact != "" {
		command = "${NOMAD_TASK_DIR}/tatami"
		t.Artifacts = []*api.TaskArtifact{{GetterSource: &o.Artifact, GetterOptions: map[string]string{"checksum": o.Checksum}, RelativeDest: ptr("local/")}}
	}
	t.Config = map[string]any{"command": command, "args": args}
	t.LogConfig = &api.LogConfig{MaxFiles: ptr(5), MaxFileSizeMB: ptr(20)}
	return t
}

// secret is a file with an item of the job's own variable.
func secret(job, item, file string) *api.Template {
	return &api.Template{
		EmbeddedTmpl: ptr(fmt.Sprintf("{{ with nomadVar %s }}{{ .%s }}{{ end }}\n", strconv.Quote(Variable(job)), item)),
		DestPath:     ptr("secrets/" + file), Perms: ptr("0600"), ChangeMode: ptr(noop),
	}
}

// Variable is where a job's secrets are: its tasks may read it without a policy.
func Variable(job string) string { return "nomad/jobs/" + job }

func ptr[T any](v T) *T { return &v }
