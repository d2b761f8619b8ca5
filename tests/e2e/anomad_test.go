//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
	"github.com/tatami-faas/tatami/tests/fakenomad"
)

// aNomad is that of NOMAD_ADDR, or one that stands in for it, whose files and tasks' output lie in dir; fake is nil otherwise. The environment's token
// may do everything there.
func aNomad(t *testing.T, dir string) (c *api.Client, fake *fakenomad.Cluster) {
	t.Helper()
	if os.Getenv("NOMAD_ADDR") == "" {
		log, err := os.Create(filepath.Join(dir, "workers.log"))
		if err != nil {
			t.Fatal(err)
		}
		fake = fakenomad.New(fakenomad.Config{Dir: filepath.Join(dir, "nomad"), Run: true, Log: log})
		t.Cleanup(func() {
			fake.Close()
			log.Close()
		})
		t.Setenv("NOMAD_ADDR", fake.URL())
		t.Setenv("NOMAD_TOKEN", fakenomad.Token)
	}
	c, err := nomad.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return c, fake
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

// purge takes a job away, and what it kept.
func purge(t *testing.T, c *api.Client, job string) {
	t.Helper()
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
