//go:build linux && e2e

package containerd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/egress"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// envChild makes the test binary the process that is to be killed; it holds a childJob.
const envChild = "TATAMI_TEST_CHILD"

type childJob struct {
	Config Config
	Blobs  string
	Spec   sandbox.Spec
	// Until is the step in which it is killed.
	Until sandboxtest.Step
}

func TestMain(m *testing.M) {
	if IsShim(os.Args) {
		RunShim()
		return
	}
	if job := os.Getenv(envChild); job != "" {
		if err := child(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child makes the sandbox, says so, and waits to be killed.
func child(raw string) error {
	var job childJob
	if err := json.Unmarshal([]byte(raw), &job); err != nil {
		return err
	}
	// What it starts must not inherit it.
	_ = os.Unsetenv(envChild)
	ctx := context.Background()
	d, err := New(job.Config, sandboxtest.Blobs(job.Blobs), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	step := func(name sandboxtest.Step) { fmt.Println("step", name) }
	step(sandboxtest.StepPrepare)
	if _, err := d.Prepare(ctx, job.Spec.Artifact); err != nil {
		return err
	}
	for p := d.poolFor(job.Spec); p.waiting() < p.bounds.floor; {
		time.Sleep(time.Millisecond)
	}
	if job.Config.Precreated > 0 {
		art, err := d.artifact(d.scope(ctx), job.Spec.Artifact.Digest)
		if err != nil {
			return err
		}
		for d.precreated.started(job.Spec, art); d.precreated.count() == 0; {
			time.Sleep(time.Millisecond)
		}
	}
	step(sandboxtest.StepCreate)
	sb, err := d.Create(ctx, job.Spec)
	if err != nil {
		return err
	}
	out, err := json.Marshal(sb.Info())
	if err != nil {
		return err
	}
	fmt.Println(string(out))
	// Adoption is to find a process that serves.
	for {
		conn, err := sb.Dial(ctx)
		if err == nil {
			conn.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	step(sandboxtest.StepServe)
	if job.Until == sandboxtest.StepServe {
		select {}
	}
	step(sandboxtest.StepStop)
	if err := sb.Stop(ctx, time.Second); err != nil {
		return err
	}
	select {}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs containers and needs root; run 'make e2e' as root")
	}
	if _, err := findRunc(); err != nil {
		t.Fatalf("this test runs containers: %v", err)
	}
}

// testConfig is a configuration with directories and a cgroup of its own.
func testConfig(t testing.TB) Config {
	t.Helper()
	run, err := os.MkdirTemp("/tmp", "tt-") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(run); err != nil {
			t.Errorf("the directories cannot be removed: %v", err)
		}
	})
	return Config{
		DataDir: filepath.Join(run, "data"), RunDir: filepath.Join(run, "run"),
		ParentCgroup: "/tatami-test/" + filepath.Base(run), NodeName: "node-" + filepath.Base(run),
		Allocatable: functions.Resources{CPU: 64_000, Memory: 8 * functions.GiB, Instances: 20},
		GVisor:      true,
	}
}

func open(t testing.TB, cfg Config, blobs BlobSource) *Driver {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := New(cfg, blobs, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

func crash(t testing.TB, job childJob, after time.Duration) *sandbox.Info {
	t.Helper()
	raw, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"="+string(raw))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	var info *sandbox.Info
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		if step, ok := strings.CutPrefix(line, "step "); !ok {
			info = &sandbox.Info{}
			if err := json.Unmarshal([]byte(line), info); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		} else if step == string(job.Until) {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	return info
}

// left lists what there is of sandboxes.
func left(t testing.TB, cfg Config) []string {
	t.Helper()
	var out []string
	found := func(what, name string) { out = append(out, what+" "+name) }
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+filepath.Dir(cfg.RunDir)+"/") {
			found("mount", line)
		}
	}
	for _, dir := range []string{
		cfg.scratchRoot(), cfg.logRoot(), cfg.fifoRoot(), cfg.mountRoot(), cfg.bundleRoot(), cfg.shimSockets(), cfg.attachments(), cfg.exits(), filepath.Join(cfg.runcRoot(), namespace),
		filepath.Join(cfg.runscRoot(), namespace),
		cfg.workRoot(),
	} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			found("file", filepath.Join(dir, e.Name()))
		}
	}
	for _, id := range newCgroups(cgroupRoot, cfg.ParentCgroup).children() {
		found("cgroup", id)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, p := range procs {
		if filepath.Base(p) == self {
			continue
		}
		cmdline, _ := os.ReadFile(p + "/cmdline")
		cgroup, _ := os.ReadFile(p + "/cgroup")
		if strings.Contains(string(cmdline), cfg.RunDir) || strings.Contains(string(cgroup), cfg.ParentCgroup) {
			found("process", filepath.Base(p)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	owners, err := linkOwners(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range owners {
		found("link of", o)
	}
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "net:[") && to != own {
			found("network namespace", to)
		}
	}
	return out
}

// linkOwners lists who has a way to the internet.
func linkOwners(cfg Config) ([]string, error) {
	n, err := egress.New(cfg.withDefaults().Egress, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return n.Owners()
}

// settled is left once what ends by itself has ended: a shim outlives the deletion of its task for a moment.
func settled(t testing.TB, cfg Config) []string {
	t.Helper()
	var out []string
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if out = left(t, cfg); len(out) == 0 || time.Now().After(end) {
			return out
		}
	}
}

func TestConformance(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	sandboxtest.Run(t, sandboxtest.Setup{
		Blobs: blobs,
		Open:  func(t testing.TB) sandbox.Driver { return open(t, cfg, blobs) },
		Crash: func(t testing.TB, spec sandbox.Spec, in sandboxtest.Step, after time.Duration) *sandbox.Info {
			return crash(t, childJob{cfg, string(blobs), spec, in}, after)
		},
		Left: func(t testing.TB) []string { return settled(t, cfg) },
	})
}

// Images that name root keep the contract as root of a user namespace.
func TestConformanceMapped(t *testing.T) {
	needRoot(t)
	cfg := mappedConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	sandboxtest.Run(t, sandboxtest.Setup{
		Blobs: blobs, Mapped: true,
		Open: func(t testing.TB) sandbox.Driver { return open(t, cfg, blobs) },
		Crash: func(t testing.TB, spec sandbox.Spec, in sandboxtest.Step, after time.Duration) *sandbox.Info {
			return crash(t, childJob{cfg, string(blobs), spec, in}, after)
		},
		Left: func(t testing.TB) []string { return settled(t, cfg) },
	})
}

// mappedConfig is testConfig with user namespaces, whose users can get through to their roots.
func mappedConfig(t testing.TB) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.UserNamespaces = true
	if err := os.Chmod(filepath.Dir(cfg.RunDir), 0o711); err != nil {
		t.Fatal(err)
	}
	return cfg
}
