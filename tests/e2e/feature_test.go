//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// A function goes to workers that have what it needs: where those have no room left its other instances wait, and it is said what the rest lack.
// A worker that has come by it gets them.
func TestAWorkerLacksAFeature(t *testing.T) {
	sw := harness.NewSwitch(t)
	here := sw.Machine(1)
	server := harness.MachineAddr(1)
	s := harness.Start(t, harness.WithNetwork(here), harness.WithFlags("--no-worker", "--nats-listen", server+":4222",
		"--public-addr", server+":8080", "--control-addr", server+":8081"))
	s.Public = server + ":8080"
	f := &fleet{Server: s, t: t}
	join := func(machine int, more ...string) *harness.Worker {
		flags := []string{"--listen", harness.MachineAddr(machine) + ":0", "--grant-cpu", "1", "--grant-memory", "512Mi", "--sandbox-pool", "0", "--egress-dns", server}
		return harness.JoinFrom(t, s, sw.Machine(machine), server+":4222", append(flags, more...)...)
	}
	// The other's range is the network that it is in.
	without := []string{"--gvisor=false", "--egress-range", "10.77.0.0/16"}
	able, lacking := join(2), join(3, without...)
	eventually(t, 60*time.Second, "the workers show with what they lack", func() bool {
		nodes := f.nodes()
		lacks := nodes[lacking.Name].Lacks
		return len(nodes) == 2 && len(nodes[able.Name].Lacks) == 0 && lacks[functions.FeatureEgress] != "" && lacks[functions.FeatureGVisor] != ""
	})

	f.Deploy("plain", "probe", "cpu: 50m\nmemory: 32Mi\nscale: {min: 2, max: 2}\nplacement: {spread: node}\n")
	eventually(t, 60*time.Second, "a function that needs nothing is on both", func() bool { return len(f.on("plain")) == 2 })
	f.Deploy("guarded", "probe", "sandbox: gvisor\ncpu: 50m\nmemory: 96Mi\nephemeral: 16Mi\nscale: {min: 2, max: 2}\nplacement: {spread: node}\n")
	eventually(t, 60*time.Second, "one that needs gVisor is twice where it is", func() bool {
		on := f.on("guarded")
		if on[lacking.Name] > 0 {
			t.Fatalf("placed where there is no gVisor: %v", on)
		}
		return on[able.Name] == 2
	})
	if resp, body := s.Get("/fn/guarded/"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
	s.Must("delete", "guarded", "--yes")
	f.Deploy("open", "probe", "egress: internet\ncpu: 50m\nmemory: 64Mi\nscale: {min: 4, max: 4}\nplacement: {spread: node}\n")
	why := ""
	eventually(t, 60*time.Second, "the one that has egress is full, and it is said what the other lacks", func() bool {
		on := f.on("open")
		if on[lacking.Name] > 0 {
			t.Fatalf("placed where there is no egress: %v", on)
		}
		why = s.Must("explain", "open").Stdout
		return on[able.Name] > 0 && on[able.Name] < 4 && strings.Contains(why, "lacking") && strings.Contains(why, "--egress-range")
	})
	t.Logf("explain open:\n%s", why)
	if resp, body := s.Get("/fn/open/"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}

	lacking.Stop()
	lacking.Flags = lacking.Flags[:len(lacking.Flags)-len(without)]
	lacking.Launch()
	eventually(t, 60*time.Second, "it has egress now, and takes the others", func() bool {
		on := f.on("open")
		return on[lacking.Name] > 0 && total(on) == 4
	})
}
