//go:build e2e

package e2e

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// TestCallsKeepProcessorsAwake: a call has the kernel keep this machine's processors from sleeping, asked by the server, or by the joined worker that the
// instance is on, and it may let them sleep when nothing more comes.
func TestCallsKeepProcessorsAwake(t *testing.T) {
	const never, calls = "--stay-awake=never", "--stay-awake=calls"
	t.Run("server", func(t *testing.T) {
		s := harness.Start(t, harness.WithFlags(calls))
		callsKeepAwake(t, s, s.Said)
	})
	t.Run("worker", func(t *testing.T) {
		addr, flags := harness.WorkersAt(t)
		s := harness.Start(t, harness.WithFlags(append(flags, "--no-worker", never)...))
		w := harness.Join(t, s, addr, calls)
		callsKeepAwake(t, s, w.Said)
	})
}

// callsKeepAwake looks at what the kernel was asked for; said is the output of the process that asks.
func callsKeepAwake(t *testing.T, s *harness.Server, said func() string) {
	t.Helper()
	s.Deploy("hello", "probe", "scale: {min: 1, max: 1, keepAlive: 10m, awake: true}\nreadiness: {path: /ready}\n")
	wish, err := os.Open(awake.LatencyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if !strings.Contains(said(), "processors may sleep") {
			t.Errorf("the kernel cannot be asked, and nobody is told: %s", said())
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer wish.Close()
	stayAwake := func() bool {
		var us [4]byte
		if _, err := wish.ReadAt(us[:], 0); err != nil {
			t.Fatal(err)
		}
		return binary.NativeEndian.Uint32(us[:]) == 0
	}
	eventually(t, 20*time.Second, "the start is over", func() bool { return !stayAwake() })
	eventually(t, 20*time.Second, "a call keeps the processors awake", func() bool {
		if resp, body := s.Get("/fn/hello/pid"); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", resp.Status, body)
		}
		return stayAwake()
	})
	eventually(t, 20*time.Second, "they may sleep", func() bool { return !stayAwake() })
}
