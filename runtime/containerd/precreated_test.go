//go:build linux

package containerd

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// aheadOf is an open precreated for so many kinds, without anybody who makes containers.
func aheadOf(most int) *precreated {
	d := &Driver{}
	d.pool = newPool(d, poolBounds{})
	p := newPrecreated(d, most)
	p.opened = true
	return p
}

// waiting is a container whose process lives as long as the test.
func waitingBox(t *testing.T) *box {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	process := os.NewFile(uintptr(fd), "process")
	t.Cleanup(func() { process.Close() })
	return &box{process: process}
}

// aheadSpec is a specification of a new instance of the function.
func aheadSpec(function string) sandbox.Spec {
	id := functions.NewInstanceID()
	return sandbox.Spec{
		ID: id, Artifact: functions.Artifact{Digest: "sha256:" + function}, Env: []string{"FUNCTION=" + function, "INSTANCE=" + string(id)},
		Limits: functions.Limits{Memory: functions.MiB}, Record: []byte(id),
	}
}

func TestKindsOfContainersMadeAhead(t *testing.T) {
	of := aheadSpec("one")
	if keyOf(of) != keyOf(aheadSpec("one")) {
		t.Error("two instances of a function are of two kinds")
	}
	for what, change := range map[string]func(*sandbox.Spec){
		"artifact":       func(s *sandbox.Spec) { s.Artifact.Digest = "sha256:two" },
		"command":        func(s *sandbox.Spec) { s.Command = []string{"other"} },
		"environment":    func(s *sandbox.Spec) { s.Env = append(s.Env, "MORE=1") },
		"value":          func(s *sandbox.Spec) { s.Env = []string{"FUNCTION=two", s.Env[1]} },
		"port":           func(s *sandbox.Spec) { s.Port = 1 },
		"memory":         func(s *sandbox.Spec) { s.Limits.Memory++ },
		"activation":     func(s *sandbox.Spec) { s.Activate = true },
		"read-only root": func(s *sandbox.Spec) { s.ReadOnlyRoot = true },
		"egress":         func(s *sandbox.Spec) { s.Egress = true },
		"gVisor":         func(s *sandbox.Spec) { s.GVisor = true },
	} {
		other := aheadSpec("one")
		if change(&other); keyOf(of) == keyOf(other) {
			t.Errorf("another %s is no other kind", what)
		}
	}
}

// At most one container waits for a start of each of the latest kinds, and is taken once.
func TestContainersMadeAheadAreBounded(t *testing.T) {
	p := aheadOf(2)
	now := time.Now()
	made := func() string {
		t.Helper()
		k, _, _ := p.next(now)
		if k == nil {
			return ""
		}
		k.waits = waitingBox(t)
		return k.spec.Artifact.Digest
	}
	for i := range 3 {
		p.started(aheadSpec(fmt.Sprint(i)), nil)
	}
	p.started(aheadSpec("1"), nil)
	if a, b, c := made(), made(), made(); a != "sha256:1" || b != "sha256:2" || c != "" {
		t.Errorf("made for %q, %q and %q", a, b, c)
	}
	if n := p.count(); n != 2 {
		t.Errorf("%d wait", n)
	}
	for function, want := range map[string]bool{"0": false, "1": true, "2": true} {
		if got := p.take(aheadSpec(function)) != nil; got != want {
			t.Errorf("a start of %s finds a container: %t", function, got)
		}
		if p.take(aheadSpec(function)) != nil {
			t.Errorf("the container of %s is taken twice", function)
		}
	}
	if a, b, c := made(), made(), made(); a != "sha256:1" || b != "sha256:2" || c != "" {
		t.Errorf("made anew for %q, %q and %q", a, b, c)
	}
	p.started(aheadSpec("3"), nil)
	if k, gone, _ := p.next(now); k == nil || k.spec.Artifact.Digest != "sha256:3" || len(gone) != 1 || p.count() != 1 {
		t.Errorf("%+v is to be made, %d are gone, %d wait", k, len(gone), p.count())
	}
	if _, gone, _ := p.next(now.Add(precreatedTime + time.Minute)); len(gone) != 1 || len(p.kinds) != 0 {
		t.Errorf("an hour later %d are gone, %d kinds are left", len(gone), len(p.kinds))
	}
	small := aheadSpec("small")
	small.Limits.Ephemeral = precreatedScratch - 1
	if p.started(small, nil); len(p.kinds) != 0 {
		t.Error("one is made for a scratch without room for the init")
	}
}

// The making of containers gives way to starts for a time, and to a failure.
func TestContainersMadeAheadGiveWay(t *testing.T) {
	p := aheadOf(1)
	p.started(aheadSpec("one"), nil)
	now := time.Now()
	p.d.pool.count(1)
	if k, _, pause := p.next(now); k != nil || pause <= 0 || pause > p.patience {
		t.Errorf("beside a start %+v is made, or looked for after %s", k, pause)
	}
	if k, _, _ := p.next(now.Add(p.patience)); k == nil {
		t.Error("none is made beside starts without an end")
	}
	p.d.pool.count(-1)
	p.kinds[0].retry = now.Add(time.Second)
	if k, _, pause := p.next(now); k != nil || pause != time.Second {
		t.Errorf("after a failure %+v is made, or looked for after %s", k, pause)
	}
	dead := waitingBox(t)
	dead.process.Close()
	dead.process = nil
	p.kinds[0].waits, p.kinds[0].retry = dead, time.Time{}
	if k, gone, _ := p.next(now); k == nil || len(gone) != 1 {
		t.Errorf("in place of a dead one %+v is made, %d are gone", k, len(gone))
	}
}

func TestPrecreatedBound(t *testing.T) {
	for _, c := range []struct {
		given  int
		memory int64
		want   int
	}{
		{PoolAuto, 512 * functions.MiB, 0}, {PoolAuto, 0, int(4 * functions.GiB / precreatedShare / PrecreatedCost)}, {PoolAuto, 64 * functions.GiB, autoPrecreated},
		{0, 64 * functions.GiB, 0}, {3, 0, 3},
	} {
		if got := precreatedBound(c.given, c.memory); got != c.want {
			t.Errorf("%d given, %d bytes: %d, not %d", c.given, c.memory, got, c.want)
		}
	}
}

// What makes containers ahead finds its way to the low share and back on either version of the kernel's interface.
func TestAside(t *testing.T) {
	t.Parallel()
	lines := "12:cpu,cpuacct:/a\n2:cpuset:/b\n1:name=systemd:/c\n0::/d\n"
	for _, c := range []struct {
		v2              bool
		in, share, file string
	}{{false, "/a", "64", "cpu/p-making/cpu.shares"}, {true, "/d", "6", "p-making/cpu.weight"}} {
		g := &cgroups{root: tree(t, map[string]string{c.file: ""}), parent: "/p", v2: c.v2}
		if got, err := g.placeIn(lines); err != nil || got != c.in {
			t.Errorf("v2 %v: this process is in %q, %v", c.v2, got, err)
		}
		if _, err := g.placeIn("3:cpuset:/\n"); err == nil {
			t.Error("a process without a cgroup has a place")
		}
		if err := g.setupAside(); err != nil || read(t, g.root, c.file) != c.share {
			t.Errorf("v2 %v: %v", c.v2, err)
		}
	}
}
