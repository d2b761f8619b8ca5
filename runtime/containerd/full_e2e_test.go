//go:build linux && e2e

package containerd

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

var fullInstances = flag.Int("full.instances", 16, "how many instances fill the node")

// TestFullNode: where all that may be placed is taken, and every instance takes what it may, the kernel ends those that want more than
// their own and nobody else; the limit over all of them is never met.
func TestFullNode(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	n := *fullInstances
	limits := functions.Limits{CPU: 500, Memory: 32 * functions.MiB, Ephemeral: 8 * functions.MiB, PIDs: 64}
	cfg.Allocatable = functions.Resources{CPU: int64(n) * limits.CPU, Memory: int64(n) * (limits.Memory + limits.Ephemeral), Instances: int64(n)}
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	art := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	all := make([]sandbox.Sandbox, n)
	var begin errgroup.Group
	begin.SetLimit(8)
	for i := range all {
		begin.Go(func() error {
			spec := testSpec(art)
			spec.Limits = limits
			var err error
			all[i], err = d.Create(t.Context(), spec)
			return err
		})
	}
	if err := begin.Wait(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, sb := range all {
			if err := sb.Stop(context.Background(), 0); err != nil {
				t.Error(err)
			}
		}
		if l := settled(t, cfg); len(l) > 0 {
			t.Errorf("left behind: %q", l)
		}
	}()
	for _, sb := range all {
		awaitServing(t, sb)
		// The ephemeral storage is memory too.
		ask(t, sb, "/write", "path", "/tmp/full", "bytes", strconv.FormatInt(limits.Ephemeral-64<<10, 10))
		ask(t, sb, "/eat", "bytes", strconv.FormatInt(limits.Memory-8<<20, 10))
		u, err := sb.Stats(t.Context())
		if most := limits.Memory + limits.Ephemeral; err != nil || u.Memory < most*3/4 || u.Memory > most {
			t.Fatalf("an instance that is to be full takes %d of %d: %v", u.Memory, most, err)
		}
	}
	for i, sb := range all {
		if i%4 == 0 {
			greedy(t, sb)
		}
	}
	for i, sb := range all {
		select {
		case <-sb.Done():
			if e := sb.Exit(); i%4 != 0 || !e.OOM {
				t.Errorf("instance %d of %d ended: %+v", i, n, e)
			}
		default:
			if i%4 == 0 {
				t.Errorf("instance %d took more than its limit and goes on", i)
			} else if got := ask(t, sb, "/"); got != "hello" {
				t.Errorf("instance %d: %q", i, got)
			}
		}
	}
	if n := firings(t, d.cgroup); n != 0 {
		t.Errorf("the limit over all instances was met %d times", n)
	}
}

// greedy has the instance take more than its limit, and waits for its end.
func greedy(t *testing.T, sb sandbox.Sandbox) {
	t.Helper()
	conn, err := sb.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /eat?bytes=60000000 HTTP/1.1\r\nHost: sandbox\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sb.Done():
	case <-time.After(30 * time.Second):
		t.Error("an instance over its limit is not ended")
	}
}

// firings is how often the parent's own limit was met.
func firings(t *testing.T, c *cgroups) int64 {
	t.Helper()
	if c.v2 {
		// Those of the children are counted in memory.events, the parent's own here.
		stat, err := keyed(c.dir("memory", ""), "memory.events.local")
		if err != nil {
			t.Fatal(err)
		}
		return stat["max"] + stat["oom"]
	}
	raw, err := os.ReadFile(filepath.Join(c.dir("memory", ""), "memory.failcnt"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
