//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/process"
)

// cluster is servers and workers, each on a machine of its own.
type cluster struct {
	t  *testing.T
	sw *harness.Switch
	// nets are the servers' machines, and then the workers'.
	nets    []*harness.Network
	servers []*harness.Server
	workers []*harness.Worker
}

// newCluster makes a cluster of three servers.
func newCluster(t *testing.T, workers int, flags ...string) *cluster {
	t.Helper()
	return newClusterOf(t, 3, workers, flags...)
}

// newClusterOf makes a cluster; the flags are the workers'.
func newClusterOf(t *testing.T, servers, workers int, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, sw: harness.NewSwitch(t)}
	secret := filepath.Join(t.TempDir(), "secret")
	at := func(n, port int) string { return harness.MachineAddr(n) + ":" + strconv.Itoa(port) }
	var each [][]harness.Option
	var peers, joins []string
	for n := 1; n <= servers; n++ {
		c.nets = append(c.nets, c.sw.Machine(n))
		peers, joins = append(peers, at(n, 6222)), append(joins, "nats://"+at(n, 4222))
	}
	for n := 1; n <= servers; n++ {
		each = append(each, []harness.Option{harness.WithVerb("server"), harness.WithNetwork(c.nets[n-1]), harness.WithFlags(
			"--cluster", "test", "--peers", strings.Join(peers, ","), "--cluster-listen", at(n, 6222), "--cluster-secret", secret, "--relay-listen", at(n, 6223),
			"--nats-listen", at(n, 4222), "--public-addr", at(n, 8080), "--control-addr", at(n, 8081), "--drain-timeout", "5s", "--lame-duck", "500ms", "--log-level", "info")})
	}
	if r, err := process.CLI(t.Context(), harness.Binary(t), t.TempDir(), "", "cluster", "secret", "--out", secret); err != nil || r.Exit != 0 {
		t.Fatalf("%v %+v", err, r)
	}
	c.servers = harness.StartTogether(t, each...)
	for n, s := range c.servers {
		s.Public = at(n+1, 8080)
	}
	for i := range workers {
		n := servers + 1 + i
		c.nets = append(c.nets, c.sw.Machine(n))
		c.workers = append(c.workers, harness.JoinFrom(t, c.servers[0], c.nets[n-1], strings.TrimPrefix(strings.Join(joins, ","), "nats://"),
			append([]string{"--listen", at(n, 0), "--grant-cpu", "1", "--grant-memory", "512Mi", "--sandbox-pool", "0"}, flags...)...))
	}
	return c
}

var leads = regexp.MustCompile(`this server leads" epoch=(\d+)`)

// leader is the server that began to lead last.
func (c *cluster) leader() int {
	c.t.Helper()
	at, last := -1, 0
	for i, s := range c.servers {
		for _, m := range leads.FindAllStringSubmatch(s.Said(), -1) {
			if epoch, err := strconv.Atoi(m[1]); err == nil && epoch > last {
				at, last = i, epoch
			}
		}
	}
	if at < 0 {
		c.t.Fatal("no server says that it leads")
	}
	return at
}

// accept hands an invocation over to a server, and returns where its result will be.
func (c *cluster) accept(s *harness.Server, fn string) (string, error) {
	resp, body, err := s.TryDo("POST", "/async/"+fn+"/echo", "x", nil)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("%s %s", resp.Status, body)
	}
	return resp.Header.Get("Location"), nil
}

// succeeded waits for the result of an invocation, asking a server.
func (c *cluster) succeeded(s *harness.Server, location string) {
	c.t.Helper()
	eventually(c.t, 60*time.Second, location+" has succeeded", func() bool {
		_, body, err := s.TryDo("GET", location+"?wait=5s", "", nil)
		var got struct{ State string }
		return err == nil && json.Unmarshal([]byte(body), &got) == nil && got.State == "succeeded"
	})
}

// Three servers are one: whichever is asked deploys, calls, queues and tells results. When the one that leads is killed, another one does its
// work, nothing that was accepted is lost, and calls through the others go on.
func TestThreeServers(t *testing.T) {
	c := newCluster(t, 2)
	f := &fleet{Server: c.servers[0], t: t, workers: c.workers}
	eventually(t, 60*time.Second, "every worker shows", func() bool { return len(f.nodes()) == 2 })
	for i, s := range c.servers {
		s.Deploy(fmt.Sprintf("fn%d", i), "probe", "cpu: 50m\nmemory: 64Mi\nscale: {min: 1, keepAlive: 10m}\n")
	}
	for i := range c.servers {
		for _, s := range c.servers {
			if resp, body := s.Get(fmt.Sprintf("/fn/fn%d/pid", i)); resp.StatusCode != http.StatusOK {
				t.Errorf("fn%d: %s %s", i, resp.Status, body)
			}
		}
	}
	var accepted []string
	for _, s := range c.servers {
		at, err := c.accept(s, "fn0")
		if err != nil {
			t.Fatal(err)
		}
		accepted = append(accepted, at)
	}
	for i, at := range accepted {
		c.succeeded(c.servers[(i+1)%3], at)
	}

	victim := c.leader()
	other := c.servers[(victim+1)%3]
	f.Server = other
	tr := f.load("fn0", 2)
	tr.after(t, 20)
	var waiting []string
	for range 5 {
		at, err := c.accept(other, "fn1")
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, at)
	}
	c.servers[victim].Kill()
	killed := time.Now()
	at, err := c.accept(other, "fn1")
	t.Logf("an invocation was accepted %s after the kill: %v", time.Since(killed).Round(100*time.Millisecond), err)
	if err == nil {
		waiting = append(waiting, at)
	}
	// Only a scheduler starts instances: the function has none yet.
	eventually(t, 90*time.Second, "another server leads", func() bool { return c.leader() != victim })
	eventually(t, 30*time.Second, "the server that is gone is told of", func() bool {
		return strings.Contains(other.CLI("cluster", "ls").Stdout, "missing") && strings.Contains(other.CLI("status").Stderr, "1 of 3 servers are missing")
	})
	eventually(t, 90*time.Second, "a function is deployed", func() bool {
		return other.TryDeploy("after", "probe", "cpu: 50m\nmemory: 64Mi\n").Exit == 0
	})
	t.Logf("a function was deployed %s after the kill", time.Since(killed).Round(100*time.Millisecond))
	if resp, body := other.Get("/fn/after/pid"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, body)
	}
	tr.after(t, 20)
	for _, x := range tr.end() {
		t.Errorf("a call through another gateway failed: %s", x.what)
	}
	for _, at := range waiting {
		c.succeeded(other, at)
	}
	token := strings.TrimSpace(other.Must("token", "rotate").Stdout)
	c.servers[victim].Launch()
	eventually(t, 60*time.Second, "the server that came back calls functions", func() bool {
		resp, _, err := c.servers[victim].TryDo("GET", "/fn/after/pid", "", nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	for i, s := range c.servers {
		eventually(t, 30*time.Second, fmt.Sprintf("server %d has the token that replaced the one of before", i), func() bool {
			has, err := os.ReadFile(filepath.Join(s.DataDir, "token"))
			return err == nil && strings.TrimSpace(string(has)) == token
		})
	}
	c.outage()
	// A worker that stayed takes the commands of whoever leads now. The servers wait for that for ten seconds, and are to elect first.
	up := time.Now()
	eventually(t, 90*time.Second, "a function is deployed after the outage", func() bool {
		r := c.servers[0].TryDeploy("again", "probe", "cpu: 50m\nmemory: 64Mi\nscale: {min: 1, keepAlive: 10m}\n")
		if r.Exit != 0 {
			t.Logf("%s after the outage: %s", time.Since(up).Round(100*time.Millisecond), r.Stderr)
		}
		return r.Exit == 0
	})
	t.Logf("a function was deployed %s after the servers were back", time.Since(up).Round(100*time.Millisecond))
	if resp, body := c.servers[1].Get("/fn/again/pid"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// outage kills all servers, as a power failure where they are does, and starts them again. The workers stay.
func (c *cluster) outage() {
	c.t.Helper()
	for _, s := range c.servers {
		s.Kill()
	}
	var wg sync.WaitGroup
	for _, s := range c.servers {
		wg.Go(func() {
			if err := s.TryLaunch(); err != nil {
				c.t.Error(err)
			}
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}
