package reconcile_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// TestPrefetchOnDeploy: once a revision takes the traffic, its artifact is made ready on the tightest two of the nodes that could take its next
// instances and lack it; on no other, and nowhere twice.
func TestPrefetchOnDeploy(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	core := reconcile.New(reconcile.Config{}, functions.NewInstanceID)
	const digest = "sha256:aa"
	report := func(node string, cpu int64, arch string, artifacts ...string) {
		core.Report(now, bus.Report{Envelope: bus.Envelope{Boot: "b", Node: functions.NodeID(node), Sequence: 1}, Full: true, State: bus.NodeState{
			Name: node, Architecture: arch, Allocatable: functions.Resources{CPU: cpu, Memory: 4 * functions.GiB, Instances: 100}, Artifacts: artifacts,
		}})
	}
	// The tightest one gets the first instance.
	report("nod_first", 300, "amd64")
	report("nod_full", 200, "amd64")
	report("nod_arm", 400, "arm64")
	report("nod_has", 450, "amd64", digest)
	report("nod_wide", 4000, "amd64")
	report("nod_tight", 500, "amd64")
	report("nod_middle", 2000, "amd64")
	core.Synced(now)
	ref := functions.Ref{Namespace: "default", Name: "f"}
	core.SetRevision(now, functions.Revision{
		Namespace: ref.Namespace, Function: ref.Name, ID: "rev_a", State: functions.RevisionPending,
		Artifact: functions.Artifact{Digest: digest, Architecture: "amd64"}, Config: functions.Config{Limits: functions.Limits{CPU: 250}},
	})
	effects := core.SetFunction(now, functions.Function{Namespace: ref.Namespace, Name: ref.Name, Candidate: "rev_a"})
	effects = append(effects, core.Tick(now.Add(time.Second))...)
	start := slices.IndexFunc(effects, func(e reconcile.Effect) bool { return e.Kind == reconcile.Send && e.Command.Action == bus.ActionStart })
	if start < 0 {
		t.Fatalf("nothing was started: %+v", effects)
	}
	first := effects[start].Command
	now = now.Add(2 * time.Second)
	effects = core.Report(now, bus.Report{
		Envelope: bus.Envelope{Boot: "b", Node: first.Node, Sequence: 2},
		State: bus.NodeState{
			Name: string(first.Node), Architecture: "amd64", Allocatable: functions.Resources{CPU: 300, Memory: 4 * functions.GiB, Instances: 100}, ArtifactsKept: true,
		},
		Instances: []bus.InstanceReport{{
			Instance: first.Instance, Namespace: ref.Namespace, Function: ref.Name, Revision: "rev_a", State: functions.InstanceReady, Since: now, Slots: 10,
			Reserved: first.Revision.Config.Limits.Resources(),
		}},
	})
	effects = append(effects, core.Tick(now.Add(time.Second))...)
	var got []string
	for _, e := range effects {
		if e.Kind == reconcile.Send && e.Command.Action == bus.ActionPrepare {
			if e.Command.Revision == nil || e.Command.Revision.Artifact.Digest != digest || e.Command.Instance != "" {
				t.Errorf("%+v", e.Command)
			}
			got = append(got, string(e.Command.Node))
		}
	}
	want := []string{"nod_tight", "nod_middle"}
	if first.Node == "nod_has" {
		want = []string{"nod_first", "nod_tight"}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("prepared on %q, want %q; the first instance is on %s", got, want, first.Node)
	}
}
