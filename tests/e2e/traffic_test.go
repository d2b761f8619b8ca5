//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Whichever server an operator asks shows what all gateways do: the API, the CLI and what the dashboard reads. One that is gone is named. The metrics of each
// server are of its own gateway.
func TestTrafficOfAllServers(t *testing.T) {
	c := newCluster(t, 1)
	f := &fleet{Server: c.servers[0], t: t, workers: c.workers}
	eventually(t, 60*time.Second, "the worker shows", func() bool { return len(f.nodes()) == 1 })
	f.Deploy("busy", "probe", "cpu: 50m\nmemory: 64Mi\nscale: {min: 1, keepAlive: 10m}\n")
	leader := c.leader()
	first, second := (leader+1)%3, (leader+2)%3
	eventually(t, 30*time.Second, "every gateway tells what it does", func() bool {
		p := overview(t, c.servers[leader])
		return len(p.Servers) == 3 && p.Totals.Without == nil
	})

	calls := map[int]int{first: 30, second: 12}
	for i, n := range calls {
		for range n {
			if resp, body := c.servers[i].Get("/fn/busy/pid"); resp.StatusCode != http.StatusOK {
				t.Fatalf("server %d: %s %s", i, resp.Status, body)
			}
		}
	}
	// What is queued at one server is run by the one that leads, and counts once.
	at, err := c.accept(c.servers[first], "busy")
	if err != nil {
		t.Fatal(err)
	}
	c.succeeded(c.servers[first], at)
	calls[leader] = 1
	const all = 30 + 12 + 1
	for i, s := range c.servers {
		var fn v1.Function
		list(t, s, &fn, "fn", "show", "busy")
		if got := fn.Traffic; got.Requests != all || got.RPS <= 0 || got.P99 <= 0 || got.Without != nil {
			t.Errorf("server %d shows %+v", i, got)
		}
		var st v1.Status
		if list(t, s, &st, "status"); st.RPS <= 0 || slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, "traffic") }) {
			t.Errorf("server %d: %+v", i, st)
		}
		var servers []v1.Server
		list(t, s, &servers, "cluster", "ls")
		for j, v := range servers {
			if v.Traffic == nil || v.Traffic.Requests != uint64(calls[j]) {
				t.Errorf("server %d shows of server %d: %+v", i, j, v.Traffic)
			}
		}
	}
	// Who leads next begins a page of its own.
	led := func() bool { return c.leader() == leader }
	eventually(t, 30*time.Second, "the dashboard has all of it", func() bool {
		p := overview(t, c.servers[first])
		return !led() || p.Totals.Requests == all && slices.ContainsFunc(p.Functions, func(f live.Function) bool { return f.Function == "busy" && f.Requests == all })
	})

	c.servers[second].Kill()
	missing := filepath.Base(filepath.Dir(c.servers[second].DataDir))
	eventually(t, 30*time.Second, "the server that is gone is named where its figures are missing", func() bool {
		r := c.servers[first].CLI("fn", "ls")
		return strings.Contains(r.Stderr, "traffic is without that of "+missing) && strings.Contains(c.servers[first].CLI("status").Stderr, "traffic is without that of "+missing) &&
			slices.Equal(overview(t, c.servers[first]).Totals.Without, []string{missing})
	})
	var fn v1.Function
	if list(t, c.servers[first], &fn, "fn", "show", "busy"); fn.Traffic.Requests != all-12 || !slices.Equal(fn.Traffic.Without, []string{missing}) {
		t.Errorf("%+v", fn.Traffic)
	}
	if p := overview(t, c.servers[first]); p.Totals.Requests != all && led() {
		t.Errorf("what a server did before it was gone is forgotten: %d requests of the last 15 minutes", p.Totals.Requests)
	}
	c.servers[second].Launch()
	if resp, body := c.servers[second].Get("/fn/busy/pid"); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	eventually(t, 30*time.Second, "what it does since it is back is added", func() bool {
		p := overview(t, c.servers[first])
		return p.Totals.Without == nil && (p.Totals.Requests == all+1 || !led())
	})
}

// overview is the picture that the dashboard begins with.
func overview(t *testing.T, s *harness.Server) *live.Snapshot {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.RunDir, "control.sock"))
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://tatami/v1/overview", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out live.Snapshot
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return &out
}
