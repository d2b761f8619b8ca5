//go:build linux && e2e

package containerd

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/escape"
)

// TestPoolLinks: once a function with egress was started, sandboxes with a link wait for the next one; no function without egress ever gets such a
// one, and nothing stays of them.
func TestPoolLinks(t *testing.T) {
	needInit(t)
	// Links and rules belong to a network of the test's own.
	if !escape.OwnNetwork(t) {
		return
	}
	cfg, blobs := testConfig(t), sandboxtest.Blobs(t.TempDir())
	cfg.SandboxPool = 4
	cfg.Egress.DNS = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	art := testImage(t, blobs)
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	start := func(egress bool, why string) sandbox.Sandbox {
		t.Helper()
		spec := testSpec(art)
		spec.Egress = egress
		sb, err := d.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if info := sb.Info(); info.StartPath != pathAttach || info.PathReason != why {
			t.Errorf("egress %v: started by %s: %q, not %q", egress, info.StartPath, info.PathReason, why)
		}
		if devices := devicesOf(t, sb.Info().PID); strings.Contains(devices, "eth0:") != egress {
			t.Errorf("egress %v: it has the devices\n%s", egress, devices)
		}
		awaitServing(t, sb)
		return sb
	}
	// filled returns once the pool is full, with so many links at least: two starts within a moment have more wait than one has.
	filled := func(links int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			now := d.Pool()
			if now.Waiting == 4 && now.Wanted == 4 && now.Linked == now.LinkedWanted && now.Linked >= links && (links > 0 || now.Linked == 0) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("not full, or without %d links: %+v", links, now)
			}
		}
	}
	filled(0)
	start(false, "")
	filled(0)
	first := start(true, noLink)
	filled(1)
	start(true, "")
	filled(1)
	for range 2 {
		start(false, "")
	}
	filled(1)
	removeLinks(t)
	start(true, noLink)

	// What is adopted with a link asks for others.
	if err := first.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, cfg, blobs)
	filled(1)
	list, err := d.List(t.Context())
	if err != nil || len(list) != 5 {
		t.Fatalf("%d sandboxes are adopted, %v", len(list), err)
	}
	for _, sb := range list {
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

func devicesOf(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// removeLinks removes every link there is, as another program might.
func removeLinks(t *testing.T) {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Type() != "veth" {
			continue
		}
		if err := netlink.LinkDel(l); err != nil {
			t.Fatal(err)
		}
	}
}
