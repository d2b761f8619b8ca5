//go:build linux

package containerd

import (
	"archive/tar"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	good := Config{DataDir: "/data", RunDir: "/run/x"}.withDefaults()
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	other := Config{DataDir: "/data", RunDir: "/run/y"}.withDefaults()
	if good.ParentCgroup == other.ParentCgroup || !strings.HasPrefix(good.ParentCgroup, "/tatami/") {
		t.Errorf("two drivers share %s", good.ParentCgroup)
	}
	for name, spoil := range map[string]func(*Config){
		"DataDir":      func(c *Config) { c.DataDir = "data" },
		"RunDir":       func(c *Config) { c.RunDir = "" },
		"longer":       func(c *Config) { c.RunDir = "/" + strings.Repeat("x", maxRunDir) },
		"ParentCgroup": func(c *Config) { c.ParentCgroup = "/a/../.." },
	} {
		c := good
		spoil(&c)
		if _, err := New(c, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	d, err := New(Config{DataDir: t.TempDir(), RunDir: "/tmp/x"}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.List(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the start: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := d.List(t.Context()); !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestIsShim(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want bool
		args []string
	}{
		{true, []string{"/usr/bin/tatami", "-namespace", "tatami", "-id", "x"}},
		{true, []string{"/run/tatami/bin/containerd-shim-runc-v2", "-info"}},
		{false, []string{"tatami", "up"}},
		{false, []string{"tatami"}},
		{false, nil},
	} {
		if got := IsShim(c.args); got != c.want {
			t.Errorf("%q: %v", c.args, got)
		}
	}
}

func TestContained(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"usr/bin/x": true, "./x": true, "/abs/x": true, "a/../b": true, "..data/x": true, "a/..": true,
		"../x": false, "a/../../x": false, "/../x": false, "..": false,
	} {
		_, err := contained(&tar.Header{Name: name})
		_, lerr := contained(&tar.Header{Name: "ok", Linkname: name, Typeflag: tar.TypeLink})
		if (err == nil) != want || (lerr == nil) != want {
			t.Errorf("%q: %v, as a hard link %v", name, err, lerr)
		}
	}
	if _, err := contained(&tar.Header{Name: "ok", Linkname: "../../../etc/passwd", Typeflag: tar.TypeSymlink}); err != nil {
		t.Errorf("a symbolic link may lead anywhere, it is resolved inside: %v", err)
	}
}

func TestMergeEnv(t *testing.T) {
	t.Parallel()
	got := mergeEnv([]string{"PATH=/bin", "A=1"}, []string{"A=2", "B=x=y"}, []string{"PATH=/own", "C="})
	if want := []string{"PATH=/own", "A=2", "B=x=y", "C="}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestShimEnv(t *testing.T) {
	t.Parallel()
	got := shimEnv([]string{"PATH=/bin", "TATAMI_TOKEN=secret", "NOTIFY_SOCKET=/x", "LISTEN_FDS=3", "GOMAXPROCS=1", "HOME=/root"})
	if want := []string{"PATH=/bin", "HOME=/root"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestLowerDirs(t *testing.T) {
	t.Parallel()
	one, err := lowerDirs([]mount.Mount{{Type: "bind", Source: "/s/1/fs", Options: []string{"ro", "rbind"}}})
	if err != nil || !slices.Equal(one, []string{"/s/1/fs"}) {
		t.Errorf("%q, %v", one, err)
	}
	two, err := lowerDirs([]mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=/s/2/fs:/s/1/fs"}}})
	if err != nil || !slices.Equal(two, []string{"/s/2/fs", "/s/1/fs"}) {
		t.Errorf("%q, %v", two, err)
	}
	if _, err := lowerDirs([]mount.Mount{{Type: "ext4"}}); err == nil {
		t.Error("taken for an overlay")
	}
}

func TestReadInRoot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "inside"), []byte("inside"), 0o644),
		os.Symlink("/inside", filepath.Join(root, "etc/absolute")),
		os.Symlink("../../../../../../inside", filepath.Join(root, "etc/climbs")),
		os.Symlink("/proc/self/status", filepath.Join(root, "etc/out")),
		os.Symlink("loop", filepath.Join(root, "etc/loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"etc/absolute": "inside", "etc/climbs": "inside", "inside": "inside",
		"etc/out": "", "etc/loop": "", "etc/none": "", "none/at/all": "", "inside/x": "", "etc": "",
	} {
		if got, err := readInRoot(root, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestShimOf(t *testing.T) {
	t.Parallel()
	d := &Driver{cfg: Config{RunDir: "/run/x"}}
	line := func(args ...string) []byte { return []byte(strings.Join(args, "\x00") + "\x00") }
	if id, ok := d.shimOf(line("/usr/bin/tatami", "-namespace", "tatami", "-id", "ins_a", "-address", "/run/x/containerd.sock")); !ok || id != "ins_a" {
		t.Errorf("%q, %v", id, ok)
	}
	for _, other := range [][]byte{
		line("/usr/bin/tatami", "-namespace", "tatami", "-id", "ins_a", "-address", "/run/y/containerd.sock"),
		line("/usr/bin/tatami", "-namespace", "k8s.io", "-id", "ins_a", "-address", "/run/x/containerd.sock"),
		line("vi", "/run/x/containerd.sock"), line("x"), nil,
	} {
		if _, ok := d.shimOf(other); ok {
			t.Errorf("%q is taken for a shim of ours", other)
		}
	}
}

// tree makes files of a cgroup hierarchy.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCgroupV1(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{
		"memory/p/memory.limit_in_bytes":       "max",
		"memory/p/memory.usage_in_bytes":       "1000\n",
		"memory/p/ins/memory.usage_in_bytes":   "1000000\n",
		"memory/p/ins/memory.stat":             "cache 1\nrss 2\ntotal_cache 600000\ntotal_rss 400000\ntotal_shmem 100000\n",
		"memory/p/ins/memory.oom_control":      "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
		"cpu/p/cpu.cfs_quota_us":               "-1",
		"cpuacct/p/ins/cpuacct.usage":          "5000000\n",
		"pids/p/ins/pids.current":              "7\n",
		"freezer/p/ins/freezer.state":          "FROZEN\n",
		"memory/p/memory.memsw.limit_in_bytes": "1",
		"cpuset/cpuset.cpus":                   "0-1\n",
		"cpuset/cpuset.mems":                   "0\n",
		"cpuset/p/cpuset.cpus":                 "1\n",
		"cpuset/p/cpuset.mems":                 "\n",
		"cpuset/p/ins/cpuset.cpus":             "\n",
		"cpuset/p/ins/cpuset.mems":             "\n",
	})
	c := &cgroups{root: root, parent: "/p"}
	if err := c.setup(functions.Resources{CPU: 2000, Memory: functions.GiB, Instances: 10}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, root, "memory/p/memory.limit_in_bytes"); got != "1143472128" {
		t.Errorf("limit %s", got)
	}
	if got := read(t, root, "cpu/p/cpu.cfs_quota_us"); got != "210000" {
		t.Errorf("quota %s", got)
	}
	u, err := c.usage("ins")
	if want := (functions.Usage{CPU: functions.Duration(5 * time.Millisecond), Memory: 500000, PIDs: 7}); err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	if n := c.oomKills("ins"); n != 3 {
		t.Errorf("%d kills", n)
	}
	if err := c.thaw("ins"); err != nil || read(t, root, "freezer/p/ins/freezer.state") != "THAWED" {
		t.Errorf("not thawed: %v", err)
	}
	if !c.can().swap {
		t.Error("swap is accounted")
	}
	if err := c.inheritCPUs(filepath.Join(root, "cpuset"), "/p/ins"); err != nil || read(t, root, "cpuset/p/ins/cpuset.cpus") != "1\n" || read(t, root, "cpuset/p/ins/cpuset.mems") != "0\n" {
		t.Errorf("no process could enter: %v", err)
	}
	if _, err := c.usage("other"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if got := c.children(); !slices.Equal(got, []string{"ins"}) {
		t.Errorf("%q", got)
	}
	// What is in use stays allowed.
	if err := c.setup(functions.Resources{Memory: -functions.GiB}); err != nil {
		t.Error(err)
	}
}

func TestCgroupV2(t *testing.T) {
	t.Parallel()
	const all = "cpuset cpu io memory hugetlb pids\n"
	root := tree(t, map[string]string{
		"cgroup.controllers":         all,
		"cgroup.subtree_control":     "",
		"a/cgroup.controllers":       all,
		"a/cgroup.subtree_control":   "",
		"a/p/cgroup.controllers":     all,
		"a/p/cgroup.subtree_control": "",
		"a/p/memory.max":             "max\n",
		"a/p/memory.current":         "1000\n",
		"a/p/memory.swap.max":        "max\n",
		"a/p/cpu.max":                "max 100000\n",
		"a/p/ins/memory.current":     "1000000\n",
		"a/p/ins/memory.stat":        "anon 400000\nfile 600000\nkernel 1\nshmem 100000\n",
		"a/p/ins/memory.events":      "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n",
		"a/p/ins/cpu.stat":           "usage_usec 5000\nuser_usec 1\n",
		"a/p/ins/pids.current":       "7\n",
		"a/p/ins/cgroup.freeze":      "1\n",
		"a/p/ins/cgroup.kill":        "",
		"a/cpuset.cpus":              "",
		"a/p/cpuset.cpus":            "",
		"a/p/ins/cpuset.cpus":        "",
	})
	c := &cgroups{root: root, parent: "/a/p", v2: true}
	if err := c.setup(functions.Resources{CPU: 2000, Memory: functions.GiB, Instances: 10}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "a", "a/p"} {
		if got := read(t, root, filepath.Join(dir, "cgroup.subtree_control")); got != "+cpu +memory +pids" {
			t.Errorf("%q hands down %q", dir, got)
		}
	}
	if got := read(t, root, "a/p/memory.max"); got != "1143472128" {
		t.Errorf("limit %s", got)
	}
	if got := read(t, root, "a/p/cpu.max"); got != "210000 100000" {
		t.Errorf("quota %s", got)
	}
	u, err := c.usage("ins")
	if want := (functions.Usage{CPU: functions.Duration(5 * time.Millisecond), Memory: 500000, PIDs: 7}); err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	if n := c.oomKills("ins"); n != 1 {
		t.Errorf("%d kills", n)
	}
	c.kill("ins")
	if read(t, root, "a/p/ins/cgroup.freeze") != "0" || read(t, root, "a/p/ins/cgroup.kill") != "1" {
		t.Error("not thawed and killed")
	}
	if !c.can().swap || !reflect.DeepEqual(c.children(), []string{"ins"}) {
		t.Errorf("%q", c.children())
	}
	// The root of v2 has no file of processors, its children may.
	if err := c.inheritCPUs(root, "/a/p/ins"); err != nil || read(t, root, "a/p/ins/cpuset.cpus") != "" {
		t.Errorf("processors: %v", err)
	}
	// A limit below what is in use would kill.
	if err := c.setup(functions.Resources{Memory: 1000 - parentMargin}); err != nil || read(t, root, "a/p/memory.max") != "1143472128" {
		t.Errorf("the limit was lowered below what is in use: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "a/cgroup.controllers"), []byte("cpu\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.setup(functions.Resources{}); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("a missing controller: %v", err)
	}
}

// What the OCI runtime says of a program that it could not start is told without the way it came.
func TestExecFault(t *testing.T) {
	t.Parallel()
	raw := status.Error(codes.Unknown, `failed to exec in container: failed to start exec "exec-X": OCI runtime exec failed: exec failed: `+
		`unable to start container process: exec: "sh": executable file not found in $PATH: unknown`)
	f := fault.From(execFault(t.Context(), "sh", raw))
	if f == nil || f.Code != fault.CodeInvalidRequest || f.Message != `sh cannot be run in the sandbox: "sh": executable file not found in $PATH` || f.Err != nil || f.Hint == "" {
		t.Errorf("%+v", f)
	}
	if f := fault.From(execFault(t.Context(), "sh", status.Error(codes.NotFound, "task ins_x not found"))); f == nil || f.Code != fault.CodeUnavailable || strings.Contains(f.Error(), "rpc") {
		t.Errorf("%+v", f)
	}
	if err := execFault(t.Context(), "sh", context.Canceled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
