//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
	"github.com/tatami-faas/tatami/tests/fakenomad"
	"github.com/tatami-faas/tatami/tests/process"
)

// nomadCluster is a Nomad that the tests ask and run tasks in. The environment's token may do everything there.
type nomadCluster struct {
	nomad *api.Client
	// lose has the machine of a node go; nil where that cannot be done from here.
	lose func(node string)
	// fake is nil unless this is the one that stands in for Nomad.
	fake *fakenomad.Cluster
}

// aNomad is real agents of the program NOMAD_BINARY, else that of NOMAD_ADDR, else one that stands in for it. What they keep lies in dir, which must be
// short enough for sockets.
func aNomad(t *testing.T, dir string) *nomadCluster {
	t.Helper()
	n := &nomadCluster{}
	switch {
	case os.Getenv("NOMAD_BINARY") != "":
		a := startAgents(t, os.Getenv("NOMAD_BINARY"), agentsIn(dir))
		t.Setenv("NOMAD_ADDR", a.url())
		t.Setenv("NOMAD_TOKEN", a.token)
		n.lose = a.lose
	case os.Getenv("NOMAD_ADDR") == "":
		n.fake = standIn(t, dir)
		t.Setenv("NOMAD_ADDR", n.fake.URL())
		t.Setenv("NOMAD_TOKEN", fakenomad.Token)
		n.lose = n.fake.LoseNode
	}
	var err error
	if n.nomad, err = nomad.FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	return n
}

// standIn starts the one that stands in for Nomad.
func standIn(t *testing.T, dir string) *fakenomad.Cluster {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "tasks.log"))
	if err != nil {
		t.Fatal(err)
	}
	fake := fakenomad.New(fakenomad.Config{Dir: filepath.Join(dir, "nomad"), Run: true, Log: log, Network: fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(255))})
	t.Cleanup(func() {
		fake.Close()
		log.Close()
		if data, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("last output of the tasks:\n%s", data[max(0, len(data)-20_000):])
		}
	})
	return fake
}

// compute is what the smallest of Nomad's nodes has of processors, in its MHz. All of them must be able to run the tests' tasks.
func compute(t *testing.T, c *api.Client) (least int) {
	t.Helper()
	for _, stub := range readyNodes(t, c) {
		n, _, err := c.Nodes().Info(stub.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n.Attributes["driver.raw_exec"] != "1" {
			t.Fatalf("nomad's node %s has no driver raw_exec: plugin \"raw_exec\" { config { enabled = true } }", n.Name)
		}
		has, err := strconv.Atoi(n.Attributes["cpu.totalcompute"])
		if err != nil {
			t.Fatalf("nomad's node %s: cpu.totalcompute: %v", n.Name, err)
		}
		if least == 0 || has < least {
			least = has
		}
	}
	if least == 0 {
		t.Fatal("this Nomad has no node that is ready")
	}
	return least
}

// readyNodes are those that take tasks.
func readyNodes(t *testing.T, c *api.Client) []*api.NodeListStub {
	t.Helper()
	nodes, _, err := c.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(nodes, func(n *api.NodeListStub) bool {
		return n.Status != api.NodeStatusReady || n.SchedulingEligibility != api.NodeSchedulingEligible
	})
}

// restricted makes a token that may do what the policy for the servers says, and no more, until the test ends. It is empty where Nomad has no ACLs.
func restricted(t *testing.T, c *api.Client) string {
	t.Helper()
	policy := &api.ACLPolicy{Name: nomadJob, Rules: jobs.Policy(os.Getenv("NOMAD_NAMESPACE"))}
	if _, err := c.ACLPolicies().Upsert(policy, nil); err != nil {
		if strings.Contains(err.Error(), "ACL support disabled") {
			t.Log("this Nomad has no ACLs: it refuses nobody")
			return ""
		}
		t.Fatalf("making a policy, which takes a management token in NOMAD_TOKEN: %v", err)
	}
	t.Cleanup(func() {
		if _, err := c.ACLPolicies().Delete(policy.Name, nil); err != nil {
			t.Errorf("the policy stays: %v", err)
		}
	})
	token, _, err := c.ACLTokens().Create(&api.ACLToken{Name: nomadJob, Type: "client", Policies: []string{policy.Name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.ACLTokens().Delete(token.AccessorID, nil); err != nil {
			t.Errorf("the token stays: %v", err)
		}
	})
	return token.SecretID
}

// purge ends a job, and then takes it away with what it kept. Nomad forgets a job's allocations with it, also those whose tasks still end.
func purge(t *testing.T, c *api.Client, job string) {
	t.Helper()
	if _, _, err := c.Jobs().Deregister(job, false, nil); err != nil {
		t.Errorf("the job %s stays: %v", job, err)
		return
	}
	eventually(t, time.Minute, "the tasks of "+job+" end", func() bool { return len(allocsOf(t, c, job)) == 0 })
	if _, _, err := c.Jobs().Deregister(job, true, nil); err != nil {
		t.Errorf("the job %s stays: %v", job, err)
	}
	if _, err := c.Variables().Delete(jobs.Variable(job), nil); err != nil {
		t.Errorf("the variable of the job %s stays: %v", job, err)
	}
}

// allocsOf lists a job's allocations whose tasks have not ended, as far as Nomad sees, by index.
func allocsOf(t *testing.T, c *api.Client, job string) []*api.AllocationListStub {
	t.Helper()
	all, _, err := c.Jobs().Allocations(job, true, nil)
	if err != nil {
		t.Errorf("listing the allocations: %v", err)
		return nil
	}
	all = slices.DeleteFunc(all, func(a *api.AllocationListStub) bool {
		over := []string{api.AllocClientStatusComplete, api.AllocClientStatusFailed, api.AllocClientStatusLost, api.AllocClientStatusUnknown}
		return slices.Contains(over, a.ClientStatus)
	})
	slices.SortFunc(all, func(a, b *api.AllocationListStub) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// dropPolicy takes away what applying a job of servers has made.
func dropPolicy(t *testing.T, c *api.Client, name string) {
	t.Helper()
	if _, err := c.ACLPolicies().Delete(name, nil); err != nil && !strings.Contains(err.Error(), "ACL support disabled") {
		t.Errorf("the policy stays: %v", err)
	}
}

// shortDir is a directory for what has sockets in it, whose names are bounded: the test's own would be too long. It goes once nothing of what ran there is
// left: processes and mounts, and cgroups that begin with tatami- and the directory's name.
func shortDir(t *testing.T) (dir, name string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tn") //nolint:usetesting // as said above
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Base(dir)
	t.Cleanup(func() {
		for _, l := range process.AwaitNothingLeft(func() []string {
			return process.Leftovers(dir, "", func(cgroup string) bool { return strings.HasPrefix(cgroup, "tatami-"+name+"-") })
		}) {
			t.Errorf("left behind: %s", l)
		}
		if t.Failed() {
			tellAgents(t, agentsIn(dir))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the directory is not removable: %v", err)
		}
	})
	return dir, name
}
