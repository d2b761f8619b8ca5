//go:build e2e

package e2e

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// Five servers lose two, the one that leads among them, and nothing else: what was accepted is done, calls go on, and functions are started.
func TestFiveServers(t *testing.T) {
	c := newClusterOf(t, 5, 1)
	f := &fleet{Server: c.servers[0], t: t, workers: c.workers}
	eventually(t, 60*time.Second, "the worker shows", func() bool { return len(f.nodes()) == 1 })
	const each = "cpu: 50m\nmemory: 64Mi\n"
	f.Deploy("warm", "probe", each+"scale: {min: 1, keepAlive: 10m}\n")
	f.Deploy("cold", "probe", each+"scale: {max: 1, keepAlive: 1s}\n")
	eventually(t, 60*time.Second, "nothing of a function runs", func() bool { return len(instances(t, f.Server, "cold")) == 0 })

	leader := c.leader()
	victims := []int{leader, (leader + 2) % 5}
	var accepted []string
	for _, s := range c.servers {
		for _, fn := range []string{"warm", "cold"} {
			at, err := c.accept(s, fn)
			if err != nil {
				t.Fatal(err)
			}
			accepted = append(accepted, at)
		}
	}
	for _, i := range victims {
		c.servers[i].Kill()
	}
	killed := time.Now()
	for i, s := range c.servers {
		if slices.Contains(victims, i) {
			continue
		}
		if resp, body := s.Get("/fn/warm/pid"); resp.StatusCode != http.StatusOK {
			t.Errorf("server %d calls: %s %s", i, resp.Status, body)
		}
		f.Server = s
	}
	eventually(t, 60*time.Second, "something is accepted", func() bool {
		at, err := c.accept(f.Server, "warm")
		accepted = append(accepted, at)
		return err == nil
	})
	t.Logf("two of five servers are killed: an invocation is accepted after %s", time.Since(killed).Round(10*time.Millisecond))
	for _, at := range accepted {
		if at != "" {
			c.succeeded(f.Server, at)
		}
	}
	eventually(t, 60*time.Second, "nothing of a function runs", func() bool { return len(instances(t, f.Server, "cold")) == 0 })
	if resp, body := f.Get("/fn/cold/pid"); resp.StatusCode != http.StatusOK {
		t.Errorf("a cold call: %s %s", resp.Status, body)
	}
	for _, i := range victims {
		c.servers[i].Launch()
		eventually(t, 60*time.Second, "a server that came back calls", func() bool {
			resp, _, err := c.servers[i].TryDo("GET", "/fn/warm/pid", "", nil)
			return err == nil && resp.StatusCode == http.StatusOK
		})
		c.succeeded(c.servers[i], accepted[0])
	}
	// One after the other they would stop slowly: the last ones agree on nothing any more.
	for _, w := range c.workers {
		w.Stop()
	}
	for _, s := range c.servers {
		s.Kill()
	}
}
