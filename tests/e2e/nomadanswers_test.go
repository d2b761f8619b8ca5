//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
)

const (
	// answersJob is the job with which Nomad is asked, answersService the service that its tasks are.
	answersJob     = "tatami-e2e-answers"
	answersService = "tatami-e2e-answers"
	answersPort    = 26222
)

// answers is a Nomad that is asked for what Tatami relies on.
type answers struct {
	t *testing.T
	*nomadCluster
	pool *nomad.Pool
	job  *api.Job
}

// What Tatami relies on is so at a real Nomad, and at the one that stands in for it.
func TestNomadAnswers(t *testing.T) {
	dir, _ := shortDir(t)
	a := &answers{t: t, nomadCluster: aNomad(t, dir)}
	compute(t, a.nomad)
	a.job = sleepers()
	t.Cleanup(func() { purge(t, a.nomad, answersJob) })
	if err := jobs.ApplyPolicy(t.Context(), a.nomad, os.Getenv("NOMAD_NAMESPACE"), answersJob); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropPolicy(t, a.nomad, answersJob) })
	var err error
	if a.pool, err = nomad.New(nomad.Config{Job: answersJob, Client: a.nomad}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	a.strangers()
	a.deployment()
	a.resume()
	a.bounds()
	a.conflicts()
	a.inTask()
	a.highestGoesFirst()
	a.missingMeta()
	a.noRoom()
	a.purgeForgets()
}

// sleepers is a job of one to three tasks that sleep, each a service.
func sleepers() *api.Job {
	task := api.NewTask("sleep", "raw_exec")
	task.Config = map[string]any{"command": "/bin/sleep", "args": []string{"600"}}
	task.Resources = &api.Resources{CPU: new(50), MemoryMB: new(32)}
	task.Identities = []*api.WorkloadIdentity{{Env: true}}
	g := api.NewTaskGroup(nomad.DefaultGroup, 1).AddTask(task)
	g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "one", Value: answersPort}}}}
	g.Services = []*api.Service{{Name: answersService, PortLabel: "one", Provider: "nomad"}}
	g.Scaling = &api.ScalingPolicy{Enabled: new(true), Min: new(int64(1)), Max: new(int64(3))}
	g.Update = &api.UpdateStrategy{MaxParallel: new(1), HealthCheck: new("task_states"), MinHealthyTime: new(5 * time.Second)}
	j := api.NewServiceJob(answersJob, answersJob, "", 50).AddTaskGroup(g)
	j.Region, j.Datacenters = nil, []string{"*"}
	if ns := os.Getenv("NOMAD_NAMESPACE"); ns != "" {
		j.Namespace = &ns
	}
	return j
}

// strangers are refused, where Nomad has ACLs.
func (a *answers) strangers() {
	if os.Getenv("NOMAD_TOKEN") == "" {
		a.t.Log("this Nomad has no ACLs: it refuses nobody")
		return
	}
	for _, token := range []string{"", "00000000-0000-4000-8000-000000000000"} {
		c, err := nomad.FromEnvironment()
		if err != nil {
			a.t.Fatal(err)
		}
		c.SetSecretID(token)
		if _, err := jobs.PlanJob(a.t.Context(), c, sleepers()); !fault.Is(err, fault.CodeDenied) {
			a.t.Errorf("with the token %q: %v", token, err)
		}
	}
}

// deployment makes the job, which a plan that is out of date cannot, and scales it while it is deployed, which Nomad refuses.
func (a *answers) deployment() {
	a.t.Helper()
	if a.fake != nil {
		a.fake.HoldDeployments(true)
		defer a.fake.HoldDeployments(false)
	}
	p, err := jobs.PlanJob(a.t.Context(), a.nomad, a.job)
	if err != nil || p.Change != "added" {
		a.t.Fatalf("%+v, %v", p, err)
	}
	if err := jobs.Apply(a.t.Context(), a.nomad, a.job, p); err != nil {
		a.t.Fatal(err)
	}
	if err := jobs.Apply(a.t.Context(), a.nomad, a.job, p); !fault.Is(err, fault.CodeConflict) {
		a.t.Errorf("a plan that is out of date: %v", err)
	}
	eventually(a.t, 20*time.Second, "it is deployed", func() bool { return a.deployed() != nil })
	if err := a.pool.Resize(a.t.Context(), a.state(), 2, "a test"); !fault.Is(err, fault.CodeConflict) {
		a.t.Errorf("scaled while it is deployed: %v", err)
	}
}

// deployed is the job's deployment that goes on; nil where none does.
func (a *answers) deployed() *api.Deployment {
	d, _, err := a.nomad.Jobs().LatestDeployment(answersJob, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if d == nil || d.Status != api.DeploymentStatusRunning {
		return nil
	}
	return d
}

func (a *answers) state() scheduler.PoolState {
	j, _, err := a.nomad.Jobs().Info(answersJob, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return scheduler.PoolState{Elastic: true, Count: *j.TaskGroups[0].Count, Version: *j.JobModifyIndex}
}

// settled waits until the job has so many tasks, and nothing goes on.
func (a *answers) settled(n int) {
	a.t.Helper()
	eventually(a.t, time.Minute, "it settles", func() bool {
		running := 0
		for _, al := range allocsOf(a.t, a.nomad, answersJob) {
			if al.ClientStatus == api.AllocClientStatusRunning && al.DesiredStatus == api.AllocDesiredStatusRun {
				running++
			}
		}
		return running == n && a.deployed() == nil
	})
}

// resume has a stream of events begin at an index that is over, and a read answer when its index is.
func (a *answers) resume() {
	a.t.Helper()
	a.settled(1)
	from := a.state().Version
	events, err := a.nomad.EventStream().Stream(a.t.Context(), map[api.Topic][]string{api.TopicJob: {answersJob}}, from, &api.QueryOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.Err != nil || e.Index < from || len(e.Events) == 0 || e.Events[0].Key != answersJob {
			a.t.Errorf("the first event is %+v", e)
		}
	case <-time.After(time.Minute):
		a.t.Error("what happened at the index of the stream is not told")
	}
	_, meta, err := a.nomad.Jobs().Info(answersJob, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.changed(from, meta.LastIndex) }()
	if err := a.pool.Resize(a.t.Context(), a.state(), 1, "a test"); err != nil {
		a.t.Errorf("to what it is: %v", err)
	}
	if err := <-done; err != nil {
		a.t.Errorf("reads that wait for a change: %v", err)
	}
}

// changed reads the job, each time when its index has passed, until it is another than at an index.
func (a *answers) changed(from, index uint64) error {
	ctx, cancel := context.WithTimeout(a.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		j, meta, err := a.nomad.Jobs().Info(answersJob, (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
		if err != nil || *j.JobModifyIndex > from {
			return err
		}
		index = meta.LastIndex
	}
}

// bounds refuses what the scaling block does not allow, and what was meant for the job as it was.
func (a *answers) bounds() {
	a.t.Helper()
	a.settled(1)
	for _, n := range []int{0, 4} {
		if err := a.pool.Resize(a.t.Context(), a.state(), n, "a test"); !fault.Is(err, fault.CodeInvalidRequest) {
			a.t.Errorf("%d tasks: %v", n, err)
		}
	}
	old := a.state()
	old.Version--
	if err := a.pool.Resize(a.t.Context(), old, 1, "a test"); !fault.Is(err, fault.CodeConflict) {
		a.t.Errorf("of the job as it was: %v", err)
	}
}

// conflicts refuses a variable that somebody else has changed.
func (a *answers) conflicts() {
	a.t.Helper()
	for _, v := range []string{"one", "two"} {
		if err := jobs.StoreSecret(a.t.Context(), a.nomad, answersJob, "token", v); err != nil {
			a.t.Fatal(err)
		}
	}
	v, _, err := a.nomad.Variables().Read(jobs.Variable(answersJob), nil)
	if err != nil || v.Items["token"] != "two" {
		a.t.Fatalf("%+v, %v", v, err)
	}
	v.ModifyIndex--
	var conflict api.ErrCASConflict
	if _, _, err := a.nomad.Variables().CheckedUpdate(v, nil); !errors.As(err, &conflict) {
		a.t.Errorf("an old index: %v", err)
	}
}

// inTask asks as a task does, at its socket and with its token: where the service is, and for what the policy that is attached to its job allows.
func (a *answers) inTask() {
	a.t.Helper()
	env := environOf(a.t, allocsOf(a.t, a.nomad, answersJob)[0].ID)
	inside, err := nomad.At("unix://"+filepath.Join(env["NOMAD_SECRETS_DIR"], "api.sock"), env["NOMAD_TOKEN"])
	if err != nil {
		a.t.Fatal(err)
	}
	inside.SetNamespace(os.Getenv("NOMAD_NAMESPACE"))
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	if at, err := nomad.Peers(ctx, inside, answersService, 1, slog.New(slog.DiscardHandler)); err != nil || !strings.HasSuffix(at[0], ":26222") {
		a.t.Errorf("the service is at %v: %v", at, err)
	}
	if _, _, err := inside.Nodes().List(nil); err != nil {
		a.t.Errorf("a task whose job has the policy lists the nodes: %v", err)
	}
	if _, _, err := inside.Jobs().Info(answersJob, nil); err != nil {
		a.t.Errorf("a task whose job has the policy reads the job: %v", err)
	}
}

// environOf is the environment of an allocation's task, which runs on this machine.
func environOf(t *testing.T, alloc string) map[string]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(data, []byte("NOMAD_ALLOC_ID="+alloc+"\x00")) {
			continue
		}
		out := map[string]string{}
		for pair := range strings.SplitSeq(string(data), "\x00") {
			k, v, _ := strings.Cut(pair, "=")
			out[k] = v
		}
		return out
	}
	t.Fatalf("no process of the allocation %s runs on this machine: is Nomad's client this one?", alloc)
	return nil
}

// highestGoesFirst scales up, as far as there are nodes with the port, and down: the highest index goes.
func (a *answers) highestGoesFirst() {
	a.t.Helper()
	if len(readyNodes(a.t, a.nomad)) < 2 {
		a.t.Log("this Nomad has one node, on which the port is taken once")
		return
	}
	for _, n := range []int{2, 1} {
		// What was done to the job before may still be under way, which Nomad refuses to scale; the pool asks again, too.
		eventually(a.t, time.Minute, fmt.Sprintf("there are to be %d tasks", n), func() bool {
			return a.pool.Resize(a.t.Context(), a.state(), n, "a test") == nil
		})
		a.settled(n)
	}
	if left := allocsOf(a.t, a.nomad, answersJob)[0]; !strings.HasSuffix(left.Name, "[0]") {
		a.t.Errorf("%s is left", left.Name)
	}
}

// missingMeta has a task refer to a key of the meta that its node does not have: in its environment the reference stays, in its arguments it is an error.
func (a *answers) missingMeta() {
	a.t.Helper()
	const missing = "${meta.tatami_no_such_key}"
	// The one that fails is tried again and again: what follows asks for room.
	defer func() {
		for _, id := range []string{answersJob + "-env", answersJob + "-args"} {
			purge(a.t, a.nomad, id)
		}
	}()
	task := func(id string, change func(*api.Task)) func() *api.AllocationListStub {
		j := sleepers()
		j.ID, j.Name = &id, &id
		g := j.TaskGroups[0]
		g.Networks, g.Services = nil, nil
		change(g.Tasks[0])
		if _, _, err := a.nomad.Jobs().Register(j, nil); err != nil {
			a.t.Fatal(err)
		}
		return func() *api.AllocationListStub {
			all, _, err := a.nomad.Jobs().Allocations(id, true, nil)
			if err != nil || len(all) == 0 {
				return &api.AllocationListStub{}
			}
			return all[0]
		}
	}
	stays := task(answersJob+"-env", func(t *api.Task) { t.Env = map[string]string{"MISSING": missing} })
	fails := task(answersJob+"-args", func(t *api.Task) { t.Config["args"] = []string{"600", missing} })
	eventually(a.t, time.Minute, "the one task runs, the other fails", func() bool {
		return stays().ClientStatus == api.AllocClientStatusRunning && fails().ClientStatus == api.AllocClientStatusFailed
	})
	if got := environOf(a.t, stays().ID)["MISSING"]; got != missing {
		a.t.Errorf("in the environment stands %q", got)
	}
}

// noRoom plans tasks that take all processors of the largest node, and one after them: what that one takes does not come out of the processors of the others.
func (a *answers) noRoom() {
	a.t.Helper()
	most := 0
	for _, stub := range readyNodes(a.t, a.nomad) {
		n, _, err := a.nomad.Nodes().Info(stub.ID, nil)
		if err != nil {
			a.t.Fatal(err)
		}
		cores, err := strconv.Atoi(n.Attributes["cpu.numcores"])
		if err != nil {
			a.t.Fatal(err)
		}
		most = max(most, cores)
	}
	id := answersJob + "-cores"
	j := sleepers()
	j.ID, j.Name = &id, &id
	g := j.TaskGroups[0]
	g.Networks, g.Services = nil, nil
	g.Tasks[0].Resources = &api.Resources{Cores: &most, MemoryMB: new(32)}
	after := api.NewTask("after", "raw_exec")
	after.Config, after.Resources = g.Tasks[0].Config, &api.Resources{CPU: new(1), MemoryMB: new(32)}
	after.Lifecycle = &api.TaskLifecycle{Hook: api.TaskLifecycleHookPoststop}
	g.AddTask(after)
	p, err := jobs.PlanJob(a.t.Context(), a.nomad, j)
	if err != nil || !p.Unplaced || len(p.Why) == 0 || a.lose != nil && !strings.HasSuffix(p.Why[0], "nodes have too little left of: cpu") {
		a.t.Errorf("all processors and a bit: %+v, %v", p, err)
	}
	g.Tasks = g.Tasks[:1]
	if p, err := jobs.PlanJob(a.t.Context(), a.nomad, j); a.lose != nil && (err != nil || p.Unplaced) {
		a.t.Errorf("all processors: %+v, %v", p, err)
	}
}

// purgeForgets purges a job whose tasks run: its allocations are in no list any more.
func (a *answers) purgeForgets() {
	a.t.Helper()
	id := answersJob + "-purged"
	j := sleepers()
	j.ID, j.Name = &id, &id
	g := j.TaskGroups[0]
	g.Networks, g.Services = nil, nil
	if _, _, err := a.nomad.Jobs().Register(j, nil); err != nil {
		a.t.Fatal(err)
	}
	running := func() bool {
		all := allocsOf(a.t, a.nomad, id)
		return len(all) == 1 && all[0].ClientStatus == api.AllocClientStatusRunning
	}
	eventually(a.t, time.Minute, "it runs", running)
	if _, _, err := a.nomad.Jobs().Deregister(id, true, nil); err != nil {
		a.t.Fatal(err)
	}
	if all, _, err := a.nomad.Jobs().Allocations(id, true, nil); err != nil || len(all) > 0 {
		a.t.Errorf("after a purge %d allocations are listed: %v", len(all), err)
	}
}
