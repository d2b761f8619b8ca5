//go:build e2e

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// unitFlags reads a systemd unit and returns what it gives the verb.
func unitFlags(t *testing.T, file, verb string) []string {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(harness.Root(t), "deploy/systemd", file))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(unit)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			settings[key] = value
		}
	}
	flags, ok := strings.CutPrefix(settings["ExecStart"], "/usr/local/bin/tatami "+verb+" ")
	if !ok || settings["Type"] != "notify" || settings["KillMode"] != "process" || settings["KillSignal"] != "SIGTERM" || settings["RuntimeDirectoryPreserve"] != "yes" {
		t.Fatalf("the unit does not do what is tested here: %v", settings)
	}
	return strings.Fields(flags)
}

// listenNotify stands in for the service manager; the function returned waits until it is told of a start.
func listenNotify(t *testing.T) (told func()) {
	t.Helper()
	notify := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenPacket("unixgram", notify)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", notify)
	return func() {
		t.Helper()
		b := make([]byte, 100)
		if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := l.ReadFrom(b); err != nil || string(b[:n]) != "READY=1" {
			t.Fatalf("the service manager was told %q, %v", b[:n], err)
		}
	}
}

// Started and ended as the systemd unit does it, the server leaves its instances running and adopts them: same process, no further
// start. It tells the service manager when it is ready.
func TestServiceRestart(t *testing.T) {
	flags := unitFlags(t, "tatami.service", "up")
	told := listenNotify(t)
	s := harness.Start(t, harness.WithFlags(flags...))
	told()
	s.Deploy("hello", "hello", "scale: {min: 1, max: 1, keepAlive: 10m}\n")
	before := instances(t, s, "hello")
	if len(before) != 1 || before[0].PID == 0 {
		t.Fatalf("%+v", before)
	}
	for range 2 {
		s.Terminate()
		if ended(before[0].PID) {
			t.Fatal("the instance ended with the server")
		}
		s.Launch()
		told()
		awaitAdopted(t, s, before[0])
		if resp, body := s.Get("/fn/hello"); resp.StatusCode != 200 || strings.Contains(resp.Header.Get("Server-Timing"), "start;") {
			t.Fatalf("%s %s %s", resp.Status, resp.Header.Get("Server-Timing"), body)
		}
	}
	s.Flags = nil
	s.Terminate()
	s.Launch()
	s.Terminate()
	if !ended(before[0].PID) {
		t.Error("without the flag the instance outlives the server")
	}
}

// A joined worker as the systemd unit runs it, too; its instances answer while its server is away and again when it is back.
func TestWorkerServiceRestart(t *testing.T) {
	flags := unitFlags(t, "tatami-worker.service", "worker")
	// What is said here no setting of the operator's changes: where the server is stays open.
	if len(flags) != 3 || flags[0] != "--token-file" {
		t.Fatalf("the unit does not do what is tested here: %q", flags)
	}
	addr, listen := harness.WorkersAt(t)
	s := harness.Start(t, harness.WithFlags(append(listen, "--no-worker")...))
	told := listenNotify(t)
	w := harness.Join(t, s, addr, flags[2:]...)
	told()
	eventually(t, 10*time.Second, "the worker shows", func() bool { return len((&fleet{Server: s, t: t}).nodes()) == 1 })
	s.Deploy("hello", "hello", "scale: {min: 1, max: 1, keepAlive: 10m}\n")
	before := instances(t, s, "hello")
	if len(before) != 1 || before[0].PID == 0 {
		t.Fatalf("%+v", before)
	}
	for range 2 {
		w.Terminate()
		if ended(before[0].PID) {
			t.Fatal("the instance ended with the worker")
		}
		w.Launch()
		told()
		eventually(t, 10*time.Second, "the instance is adopted", func() bool {
			// Until the worker has told of itself, what is known is of its run before.
			after := instances(t, s, "hello")
			return len(after) == 1 && after[0].PID == before[0].PID && after[0].ID == before[0].ID && after[0].Adopted && after[0].State.Serves()
		})
		if resp, body := s.Get("/fn/hello"); resp.StatusCode != 200 || strings.Contains(resp.Header.Get("Server-Timing"), "start;") {
			t.Fatalf("%s %s %s", resp.Status, resp.Header.Get("Server-Timing"), body)
		}
	}
	w.Flags = nil
	w.Terminate()
	w.Launch()
	told()
	w.Terminate()
	if !ended(before[0].PID) {
		t.Error("without the flag the instance outlives the worker")
	}
}
