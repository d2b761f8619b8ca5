package jobs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
	"github.com/tatami-faas/tatami/tests/fakenomad"
)

// shown are the options of the files in deploy/nomad.
var shown = jobs.Options{Workers: jobs.WorkerOptions{Min: 1}}

// The files that operators read are what the command makes. UPDATE_GOLDEN=1 writes them anew.
func TestTheFilesAreWhatIsRendered(t *testing.T) {
	t.Parallel()
	worker, err := jobs.Worker(shown)
	if err != nil {
		t.Fatal(err)
	}
	server, err := jobs.Server(shown)
	if err != nil {
		t.Fatal(err)
	}
	var w, s bytes.Buffer
	if err := jobs.WriteHCL(&w, worker); err != nil {
		t.Fatal(err)
	}
	if err := jobs.WriteHCL(&s, server); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"worker.nomad.hcl": w.String(), "server.nomad.hcl": s.String(), "policy.hcl": jobs.Policy("")} {
		file := filepath.Join("../../../deploy/nomad", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(file)
		if err != nil || string(have) != text {
			t.Errorf("%s is not what `tatami nomad render` makes (UPDATE_GOLDEN=1 writes it anew): %v", name, err)
		}
	}
}

// Every word of a job is in its text: Nomad reads the one as it takes the other.
func TestNoWordIsLeftOut(t *testing.T) {
	t.Parallel()
	server, err := jobs.Server(shown)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []*api.Job{worker(t, shown), server} {
		var text bytes.Buffer
		if err := jobs.WriteHCL(&text, j); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatal(err)
		}
		for _, word := range words(plain) {
			if !strings.Contains(text.String(), word) {
				t.Errorf("%s: %q is not in the text", *j.ID, word)
			}
		}
	}
}

// words are the texts in what JSON holds.
func words(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			out = append(out, words(e)...)
		}
	case map[string]any:
		for _, e := range v {
			out = append(out, words(e)...)
		}
	}
	return out
}

// Keys of the node's meta go into the environment: in arguments, one that a node does not have would keep the task from starting.
func TestNodeMeta(t *testing.T) {
	t.Parallel()
	task := worker(t, jobs.Options{Workers: jobs.WorkerOptions{NodeMeta: []string{"zone", "a.b"}}}).TaskGroups[0].Tasks[0]
	if got, want := task.Env[nomad.EnvMeta], "zone=${meta.zone}\na.b=${meta.a.b}"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, arg := range task.Config["args"].([]string) {
		if strings.Contains(arg, "${meta.") {
			t.Errorf("an argument is %s", arg)
		}
	}
	if env := worker(t, shown).TaskGroups[0].Tasks[0].Env; env[nomad.EnvMeta] != "" {
		t.Errorf("without keys there is %q", env)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for field, o := range map[string]jobs.Options{
		"max":          {Workers: jobs.WorkerOptions{Min: 3, Max: 2}},
		"count":        {Workers: jobs.WorkerOptions{Count: 11}},
		"cores":        {Workers: jobs.WorkerOptions{Cores: 1, CPU: 100}},
		"memory":       {Workers: jobs.WorkerOptions{Memory: 100}},
		"kill-timeout": {Workers: jobs.WorkerOptions{KillTimeout: 1}},
		"node-meta":    {Workers: jobs.WorkerOptions{NodeMeta: []string{"zone", "a b"}}},
		"checksum":     {Artifact: "https://example.com/tatami"},
		"join":         {Workers: jobs.WorkerOptions{Join: "nats://10.0.0.1:4222,10.0.0.2"}},
		"worker-job":   {Workers: jobs.WorkerOptions{Job: "two words"}},
		"server-job":   {Servers: jobs.ServerOptions{Job: "two.parts"}},
		// Several workers would have one directory.
		"worker-data-dir": {Workers: jobs.WorkerOptions{Shared: true, RunDir: "/run/w-${NOMAD_ALLOC_INDEX}"}},
		"worker-run-dir":  {Workers: jobs.WorkerOptions{Shared: true, DataDir: "/var/lib/w-${NOMAD_ALLOC_INDEX}"}},
	} {
		if _, err := jobs.Worker(o); !fault.Is(err, fault.CodeInvalidRequest) || fault.From(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for what, o := range map[string]jobs.Options{
		"a checksum of nothing":          {Checksum: "sha256:" + strings.Repeat("0", 64)},
		"a checksum that is none":        {Artifact: "https://example.com/tatami", Checksum: "sha256:00"},
		"less than no processor":         {Workers: jobs.WorkerOptions{Cores: -1}},
		"a cluster that no server takes": {Servers: jobs.ServerOptions{Cluster: "Two Words"}},
	} {
		if _, err := jobs.Worker(o); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := jobs.Worker(jobs.Options{
		Artifact: "https://example.com/tatami", Checksum: "sha256:" + strings.Repeat("0a", 32),
		Workers: jobs.WorkerOptions{Join: "nats://10.0.0.1:4222,10.0.0.2:4222", Shared: true, DataDir: "/d-${NOMAD_ALLOC_INDEX}", RunDir: "/r-${NOMAD_SHORT_ALLOC_ID}"},
	}); err != nil {
		t.Error(err)
	}
	for _, peers := range [][]string{{"10.0.0.1"}, {"10.0.0.1", "10.0.0.2"}, {"10.0.0.1", "10.0.0.2", "c"}, {"10.0.0.1", "10.0.0.2", "::1"}} {
		if _, err := jobs.Server(jobs.Options{Servers: jobs.ServerOptions{Peers: peers}}); !fault.Is(err, fault.CodeInvalidRequest) || fault.From(err).Field != "server-peers" {
			t.Errorf("%v: %v", peers, err)
		}
	}
	if _, err := jobs.Server(jobs.Options{Servers: jobs.ServerOptions{Count: 4}}); !fault.Is(err, fault.CodeInvalidRequest) || fault.From(err).Field != "server-count" {
		t.Errorf("four servers: %v", err)
	}
}

func cluster(t *testing.T) (*fakenomad.Cluster, *api.Client) {
	t.Helper()
	f := fakenomad.New(fakenomad.Config{})
	t.Cleanup(f.Close)
	c, err := nomad.At(f.URL(), fakenomad.Token)
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func worker(t *testing.T, o jobs.Options) *api.Job {
	t.Helper()
	j, err := jobs.Worker(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestPlanAndApply(t *testing.T) {
	t.Parallel()
	_, c := cluster(t)
	apply := func(o jobs.Options, change string, count int) {
		t.Helper()
		j := worker(t, o)
		p, err := jobs.PlanJob(t.Context(), c, j)
		if err != nil || p.Change != change || p.Job != "tatami-worker" {
			t.Fatalf("%+v, %v; want %s", p, err, change)
		}
		if err := jobs.Apply(t.Context(), c, j, p); err != nil {
			t.Fatal(err)
		}
		if got, _, err := c.Jobs().Info("tatami-worker", nil); err != nil || *got.TaskGroups[0].Count != count {
			t.Errorf("%d workers, want %d: %v", *got.TaskGroups[0].Count, count, err)
		}
	}
	apply(jobs.Options{}, "added", 1)
	apply(jobs.Options{}, "none", 1)
	three := 3
	if _, _, err := c.Jobs().Scale("tatami-worker", nomad.DefaultGroup, &three, "a test", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	// What the servers made of the number stays, as far as the bounds let it.
	apply(jobs.Options{Workers: jobs.WorkerOptions{Memory: 8192}}, "edited", 3)
	apply(jobs.Options{Workers: jobs.WorkerOptions{Max: 2}}, "edited", 2)

	j := worker(t, jobs.Options{})
	p, err := jobs.PlanJob(t.Context(), c, j)
	if err != nil {
		t.Fatal(err)
	}
	apply(jobs.Options{Workers: jobs.WorkerOptions{Memory: 1024}}, "edited", 2)
	if err := jobs.Apply(t.Context(), c, j, p); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a plan that is out of date: %v", err)
	}
}

// A plan that finds no place says what is lacking. A worker cannot have all of a machine's processors: what comes after it needs some of them too.
func TestAPlanSaysWhatIsLacking(t *testing.T) {
	t.Parallel()
	_, c := cluster(t)
	for _, want := range []struct {
		o   jobs.Options
		why string
	}{
		{jobs.Options{Workers: jobs.WorkerOptions{Cores: 3}}, ""},
		{jobs.Options{Workers: jobs.WorkerOptions{Cores: 4}}, "worker: 3 of 3 nodes have too little left of: cpu"},
		{jobs.Options{Workers: jobs.WorkerOptions{Cores: 5}}, "worker: 3 of 3 nodes have too little left of: cores"},
		{jobs.Options{Workers: jobs.WorkerOptions{Memory: 20_000}}, "worker: 3 of 3 nodes have too little left of: memory"},
	} {
		p, err := jobs.PlanJob(t.Context(), c, worker(t, want.o))
		if err != nil || p.Unplaced != (want.why != "") || strings.Join(p.Why, "; ") != want.why {
			t.Errorf("%+v: %+v, %v", want.o.Workers, p, err)
		}
	}
	j := worker(t, jobs.Options{})
	j.Constrain(&api.Constraint{LTarget: "${meta.disk}", RTarget: "ssd", Operand: "="})
	if p, err := jobs.PlanJob(t.Context(), c, j); err != nil || !slices.Equal(p.Why, []string{"worker: 3 of 3 nodes are left out by the constraint ${meta.disk} = ssd"}) {
		t.Errorf("no node has it: %+v, %v", p, err)
	}
	nodes, _, err := c.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if _, err := c.Nodes().ToggleEligibility(n.ID, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := jobs.PlanJob(t.Context(), c, worker(t, jobs.Options{})); err != nil || len(p.Why) != 1 || !strings.Contains(p.Why[0], "no node") {
		t.Errorf("no node takes anything: %+v, %v", p, err)
	}
}

// In a namespace of its own all is found there, and nowhere else.
func TestInANamespace(t *testing.T) {
	t.Parallel()
	f := fakenomad.New(fakenomad.Config{Namespace: "apps"})
	t.Cleanup(f.Close)
	c, err := nomad.At(f.URL(), fakenomad.Token)
	if err != nil {
		t.Fatal(err)
	}
	o := jobs.Options{Namespace: "apps"}
	if _, err := jobs.PlanJob(t.Context(), c, worker(t, o)); !fault.Is(err, fault.CodeDenied) {
		t.Errorf("from the default namespace: %v", err)
	}
	c.SetNamespace("apps")
	j := worker(t, o)
	p, err := jobs.PlanJob(t.Context(), c, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.Apply(t.Context(), c, j, p); err != nil {
		t.Error(err)
	}
	if err := jobs.StoreSecret(t.Context(), c, "tatami-worker", "token", "one"); err != nil {
		t.Error(err)
	}
	if got, _, err := c.Jobs().Info("tatami-worker", nil); err != nil || *got.Namespace != "apps" {
		t.Errorf("the job is %+v; %v", got, err)
	}
	if text := jobs.Policy("apps"); !strings.Contains(text, `namespace "apps"`) || strings.Contains(text, "default") {
		t.Errorf("the policy is %s", text)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	f, c := cluster(t)
	if !jobs.Lacks(t.Context(), c, "tatami-worker", "token") {
		t.Error("nobody is told that there is no token")
	}
	for _, s := range [][2]string{{"token", "one"}, {"token", "two"}, {"other", "three"}, {"other", "three"}} {
		if err := jobs.StoreSecret(t.Context(), c, "tatami-worker", s[0], s[1]); err != nil {
			t.Fatal(err)
		}
	}
	v, _, err := c.Variables().Read(jobs.Variable("tatami-worker"), nil)
	if err != nil || v.Items["token"] != "two" || v.Items["other"] != "three" {
		t.Errorf("%v, %v", v, err)
	}
	stale := *v
	stale.ModifyIndex--
	if _, _, err := c.Variables().CheckedUpdate(&stale, nil); err == nil || !strings.Contains(err.Error(), "cas conflict") {
		t.Errorf("an old index: %v", err)
	}
	reader, err := nomad.At(f.URL(), f.Allow("variables:read"))
	if err != nil {
		t.Fatal(err)
	}
	if err := jobs.StoreSecret(t.Context(), reader, "tatami-worker", "token", "x"); !fault.Is(err, fault.CodeDenied) {
		t.Errorf("whoever may only read: %v", err)
	}
	if jobs.Lacks(t.Context(), c, "tatami-worker", "token") {
		t.Error("a token that is there is told to be missing")
	}
	if err := jobs.ApplyPolicy(t.Context(), c, "", "tatami"); err != nil {
		t.Error(err)
	}
	if err := jobs.ApplyPolicy(t.Context(), reader, "", "tatami"); !fault.Is(err, fault.CodeDenied) {
		t.Errorf("whoever may only read: %v", err)
	}
}
