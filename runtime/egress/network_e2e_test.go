//go:build linux && e2e

package egress

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// envInside makes the test binary run its tests: it is inside a network namespace of its own then.
const envInside = "TATAMI_TEST_INSIDE"

// TestMain runs the tests in a network namespace that ends with them: what they make never touches the machine's.
func TestMain(m *testing.M) {
	if os.Getenv(envInside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		os.Exit(1)
	}
}

// sandboxNet is the network namespace of a process with a user namespace, or without.
func sandboxNet(t testing.TB, mapped bool) *os.File {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if mapped {
		ids := []syscall.SysProcIDMap{{HostID: 0x70000000, Size: 65536}}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return f
}

func testNetwork(t testing.TB, name string) *Network {
	t.Helper()
	n, err := New(Config{
		Name: name, State: filepath.Join(t.TempDir(), "state"), DNS: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func inside(t testing.TB, ns *os.File) (addrs []string) {
	t.Helper()
	if err := inNamespace(ns, func() error {
		l, err := netlink.LinkByName(inner)
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		for _, a := range list {
			addrs = append(addrs, a.IPNet.String())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return addrs
}

// A node whose range is in use cannot give links, and says so before anybody asks for one.
func TestObstacle(t *testing.T) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "taken"}, PeerName: "taken-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(link) }()
	addr, err := netlink.ParseAddr("10.77.1.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	free, taken := testNetwork(t, "free"), testNetwork(t, "taken")
	taken.cfg.Range = netip.MustParsePrefix("10.77.0.0/16")
	if err := free.Obstacle(); err != nil {
		t.Error(err)
	}
	if err := taken.Obstacle(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a range in use: %v", err)
	}
	if owners, err := free.Owners(); err != nil || len(owners) > 0 {
		t.Errorf("owners %v, %v", owners, err)
	}
}

// A link works in a namespace that belongs to a user namespace, too; a second node gives other addresses; another Network adopts the
// links that are known and removes the others.
func TestPlug(t *testing.T) {
	a, b := testNetwork(t, "a"), testNetwork(t, "b")
	plain, mapped, other := sandboxNet(t, false), sandboxNet(t, true), sandboxNet(t, false)
	for _, step := range []struct {
		n     *Network
		owner string
		ns    *os.File
		want  string
	}{{a, "plain", plain, "10.119.0.1/31"}, {a, "mapped", mapped, "10.119.0.3/31"}, {b, "other", other, "10.119.1.1/31"}} {
		if err := step.n.Plug(step.owner, step.ns); err != nil {
			t.Fatal(err)
		}
		if got := inside(t, step.ns); len(got) != 1 || got[0] != step.want {
			t.Errorf("%s has the addresses %v", step.owner, got)
		}
	}
	if err := a.Plug("plain", plain); err == nil {
		t.Error("a second link for one owner")
	}
	// The process ends; another takes its place.
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(a.cfg, a.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Adopt(func(owner string) bool { return owner == "mapped" }); err != nil {
		t.Fatal(err)
	}
	if owners, err := again.Owners(); err != nil || len(owners) != 1 || owners[0] != "mapped" {
		t.Errorf("owners %v, %v", owners, err)
	}
	if err := again.Unplug("mapped"); err != nil {
		t.Error(err)
	}
	if err := b.Unplug("other"); err != nil {
		t.Error(err)
	}
	for _, n := range []*Network{again, b} {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if whole, err := n.now.intact(); whole || err != nil {
			t.Errorf("the table %s stays: %v", n.now.tableName(), err)
		}
	}
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Errorf("devices left: %v, %v", links, err)
	}
}

// BenchmarkLink is what a start with egress takes more, and a removal.
func BenchmarkLink(b *testing.B) {
	n := testNetwork(b, "bench")
	ns := sandboxNet(b, false)
	var plugged, removed time.Duration
	for b.Loop() {
		begun := time.Now()
		if err := n.Plug("owner", ns); err != nil {
			b.Fatal(err)
		}
		there := time.Now()
		if err := n.Unplug("owner"); err != nil {
			b.Fatal(err)
		}
		plugged, removed = plugged+there.Sub(begun), removed+time.Since(there)
	}
	b.ReportMetric(float64(plugged.Microseconds())/float64(b.N), "us/plug")
	b.ReportMetric(float64(removed.Microseconds())/float64(b.N), "us/unplug")
	if err := n.Close(); err != nil {
		b.Fatal(err)
	}
}
