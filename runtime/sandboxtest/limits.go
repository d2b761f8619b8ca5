package sandboxtest

import (
	"bytes"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

func (s *suite) limits(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		spec := s.spec()
		spec.Limits.Memory, spec.Limits.Ephemeral = 48*functions.MiB, 4*functions.MiB
		c := s.create(t, spec)
		if _, err := c.try("/eat", "bytes", "200000000"); err == nil {
			t.Error("it took 200 MB")
		}
		if e := exits(t, c); e != (functions.Exit{Code: 137, OOM: true}) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("memory of a child", func(t *testing.T) {
		spec := s.spec()
		spec.Limits.Memory, spec.Limits.Ephemeral = 64*functions.MiB, 4*functions.MiB
		c := s.create(t, spec)
		_, err := c.try("/run", "arg", "eat", "arg", "200000000")
		if s.Guest {
			if e := exits(t, c); err == nil || e != (functions.Exit{Code: 137, OOM: true}) {
				t.Errorf("%+v, %v", e, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("the child: %v", err)
		}
		if got := c.get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
		if err := c.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if e := exits(t, c); e.OOM {
			t.Errorf("the end by Stop counts as one by memory: %+v", e)
		}
	})
	t.Run("pids", func(t *testing.T) {
		spec := s.spec()
		spec.Limits.PIDs = 24
		c := s.create(t, spec)
		answer, err := c.try("/children", "n", "100")
		if err == nil && !strings.Contains(answer, "resource temporarily unavailable") {
			t.Errorf("it could start 100 children: %s", answer)
		}
		if u, err := c.Stats(t.Context()); err != nil || u.PIDs < 1 || u.PIDs > 24 && !s.Guest {
			t.Errorf("%+v, %v", u, err)
		}
	})
	t.Run("cpu", func(t *testing.T) {
		spec := s.spec()
		spec.Limits.CPU = 200
		c := s.create(t, spec)
		before, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var used, passed time.Duration
		// A machine that is busy otherwise may leave it next to nothing, for a time.
		for begun, try := time.Now(), 0; used < 100*time.Millisecond && try < 10; try++ {
			again := time.Now()
			_, _ = c.try("/spin", "ms", "1500")
			time.Sleep(1600*time.Millisecond - time.Since(again))
			after, err := c.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			used, passed = (after.CPU - before.CPU).Std(), time.Since(begun)
		}
		// By the cgroup's own account, with a quarter of slack for the periods' borders: 20 % of the time that passed.
		if limit := passed / 4; used > limit+100*time.Millisecond {
			t.Errorf("used %s in %s", used, passed)
		}
		if used < 100*time.Millisecond {
			t.Errorf("used %s only: the account is wrong", used)
		}
	})
	t.Run("ephemeral storage", func(t *testing.T) {
		spec := s.spec()
		spec.Limits.Ephemeral = 8 * functions.MiB
		c := s.create(t, spec)
		for _, path := range []string{"/tmp/file", "/dev/shm/file"} {
			if _, err := c.try("/write", "path", path, "bytes", "20000000"); err == nil || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("20 MB in %s: %v", path, err)
			}
		}
		// One size for all of it.
		c.get("/write", "path", "/tmp/a", "bytes", "6000000")
		if _, err := c.try("/write", "path", "/dev/shm/b", "bytes", "6000000"); err == nil {
			t.Error("twice 6 MB fit into 8 MiB")
		}
	})
	t.Run("usage", func(t *testing.T) {
		c := s.create(t, s.spec())
		before, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.get("/eat", "bytes", "40000000")
		after, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if grown := after.Memory - before.Memory; grown < 35_000_000 || grown > 60_000_000 {
			t.Errorf("40 MB show as %d", grown)
		}
		if after.CPU <= 0 || after.PIDs <= 0 {
			t.Errorf("%+v", after)
		}
	})
	t.Run("files", func(t *testing.T) {
		c := s.create(t, s.spec())
		var own syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
			t.Fatal(err)
		}
		most := strconv.FormatUint(min(65536, own.Max), 10)
		var out bytes.Buffer
		if _, err := c.Exec(t.Context(), []string{"/testfn", "files"}, nil, &out, nil); err != nil || out.String() != most+" 0" {
			t.Errorf("a further process may have %q files, and leave one so large, %v", &out, err)
		}
		if s.Guest {
			return
		}
		got := c.get("/read", "path", "/proc/self/limits")
		for _, want := range [][2]string{{"Max core file size", "0"}, {"Max open files", most}} {
			line := got[strings.Index(got, want[0]):]
			line, _, _ = strings.Cut(line, "\n")
			if f := strings.Fields(strings.TrimPrefix(line, want[0])); len(f) < 2 || f[0] != want[1] || f[1] != want[1] {
				t.Errorf("%s", line)
			}
		}
	})
}

// mappedCapabilities are what the root of a user namespace may have there: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
// SETPCAP, NET_BIND_SERVICE.
const mappedCapabilities = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10

// mapping checks who the process is on the node: never root.
func (s *suite) mapping(t *testing.T, c *client) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Info().PID))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(raw), "\nUid:")
	ids := strings.Fields(line[:strings.IndexByte(line, '\n')])
	inside, outside := c.get("/link", "path", "/proc/self/ns/user"), ""
	if outside, err = os.Readlink("/proc/self/ns/user"); err != nil {
		t.Fatal(err)
	}
	if !s.Mapped {
		if inside != outside || !slices.Equal(ids, []string{"65532", "65532", "65532", "65532"}) {
			t.Errorf("users %q, namespace %s, the node's %s", ids, inside, outside)
		}
		return
	}
	other := s.create(t, s.spec())
	if inside == outside || inside == other.get("/link", "path", "/proc/self/ns/user") {
		t.Errorf("user namespace %s is the node's or another sandbox's", inside)
	}
	mine, theirs := c.get("/read", "path", "/proc/self/uid_map"), other.get("/read", "path", "/proc/self/uid_map")
	if f := strings.Fields(mine); len(f) != 3 || f[0] != "0" || f[1] != ids[0] || len(ids[0]) < 7 || mine == theirs {
		t.Errorf("the mapping is %q, another sandbox's %q, the node sees the users %q", mine, theirs, ids)
	}
	if err := other.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

func (s *suite) isolation(t *testing.T) {
	c := s.create(t, s.spec())
	pid := c.Info().PID
	status := map[string]string{}
	for line := range strings.Lines(c.get("/read", "path", "/proc/self/status")) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if _, told := status[set]; s.Guest && !told {
			continue
		}
		want := uint64(0)
		if s.Mapped && set != "CapInh" && set != "CapAmb" {
			want = mappedCapabilities
		}
		if n, err := strconv.ParseUint(status[set], 16, 64); err != nil || n != want {
			t.Errorf("%s is %s, not %x", set, status[set], want)
		}
	}
	if s.Guest {
		s.guest(t, c)
	} else {
		s.mapping(t, c)
		if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
			t.Errorf("NoNewPrivs %s, Seccomp %s", status["NoNewPrivs"], status["Seccomp"])
		}
		namespaces(t, c)
	}
	if got := c.sees().Interfaces; len(got) != 1 || got[0] != "lo" {
		t.Errorf("interfaces %q", got)
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if got, err := c.try("/read", "path", path); err == nil && got != "" {
			t.Errorf("%s can be read", path)
		}
	}
	closed := []string{"/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/etc/hosts", "/etc/resolv.conf"}
	if !s.Mapped {
		closed = append(closed, "/file", "/usr/file", "/dev/file")
	}
	for _, path := range closed {
		if _, err := c.try("/write", "path", path, "bytes", "1"); err == nil {
			t.Errorf("%s can be written", path)
		}
	}
	for _, path := range []string{"/tmp/file", "/dev/shm/file"} {
		if _, err := c.try("/write", "path", path, "bytes", "1"); err != nil {
			t.Errorf("%s cannot be written: %v", path, err)
		}
	}
	if got := c.get("/read", "path", "/etc/hostname"); strings.TrimSpace(got) != string(c.Info().ID) {
		t.Errorf("hostname %q", got)
	}
	if got := c.get("/read", "path", "/etc/hosts"); !strings.Contains(got, "127.0.0.1 localhost") {
		t.Errorf("hosts %q", got)
	}

	// Nothing of the node can be reached, and nothing of another sandbox.
	node := httptest.NewServer(nil)
	defer node.Close()
	if _, err := c.try("/dial", "addr", node.Listener.Addr().String()); err == nil {
		t.Error("it reaches the node's loopback device")
	}
	other := s.spec("PORT=8181")
	other.Port = 8181
	s.create(t, other)
	if _, err := c.try("/dial", "addr", net.JoinHostPort("127.0.0.1", "8181")); err == nil {
		t.Error("it reaches another sandbox")
	}
	if _, err := c.try("/dial", "addr", "192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("a route leads out: %v", err)
	}
	if _, err := c.try("/read", "path", fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		t.Error("it sees the node's processes")
	}

	t.Run("read-only root", func(t *testing.T) {
		spec := s.spec()
		spec.ReadOnlyRoot = true
		c := s.create(t, spec)
		if got := c.get("/read", "path", "/proc/self/mountinfo"); !strings.Contains(got, " / / ro,") && !strings.Contains(got, " / / ro ") {
			t.Errorf("the root is not read-only: %s", got)
		}
		if _, err := c.try("/write", "path", "/tmp/file", "bytes", "1"); err != nil {
			t.Errorf("/tmp: %v", err)
		}
	})
}

// namespaces checks that the process is in none of the node's.
func namespaces(t *testing.T, c *client) {
	t.Helper()
	for _, ns := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup"} {
		inside := c.get("/link", "path", "/proc/self/ns/"+ns)
		outside, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || inside == outside {
			t.Errorf("namespace %s: %s inside, %s outside, %v", ns, inside, outside, err)
		}
	}
}

// guest checks that the process runs on another kernel than the node's, as the same user as elsewhere.
func (s *suite) guest(t *testing.T, c *client) {
	t.Helper()
	node, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.get("/read", "path", "/proc/version"); got == "" || got == string(node) {
		t.Errorf("the kernel is the node's: %s", got)
	}
	if got := c.sees().UID; got != s.user() {
		t.Errorf("it runs as %d", got)
	}
}
