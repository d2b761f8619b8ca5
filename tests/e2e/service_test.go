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

// Started and ended as the systemd unit does it, the server leaves its instances running and adopts them: same process, no further
// start. It tells the service manager when it is ready.
func TestServiceRestart(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join(harness.Root(t), "deploy/systemd/tatami.service"))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(unit)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			settings[key] = value
		}
	}
	flags, ok := strings.CutPrefix(settings["ExecStart"], "/usr/local/bin/tatami up ")
	if !ok || settings["Type"] != "notify" || settings["KillMode"] != "process" || settings["KillSignal"] != "SIGTERM" || settings["RuntimeDirectoryPreserve"] != "yes" {
		t.Fatalf("the unit does not do what is tested here: %v", settings)
	}
	notify := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenPacket("unixgram", notify)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", notify)
	s := harness.Start(t, harness.WithFlags(strings.Fields(flags)...))
	told := func() {
		t.Helper()
		b := make([]byte, 100)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := l.ReadFrom(b); err != nil || string(b[:n]) != "READY=1" {
			t.Fatalf("the service manager was told %q, %v", b[:n], err)
		}
	}
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
		after := instances(t, s, "hello")
		if len(after) != 1 || after[0].PID != before[0].PID || after[0].ID != before[0].ID || !after[0].Adopted {
			t.Fatalf("not adopted: before %+v, after %+v", before, after)
		}
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
