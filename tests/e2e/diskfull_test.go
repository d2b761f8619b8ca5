//go:build e2e

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// With the disk full the queue refuses work with 507 and loses none of what it accepted.
func TestDiskFull(t *testing.T) {
	harness.Require(t)
	dir, err := os.MkdirTemp("/tmp", "ttdisk") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=192m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(data, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := harness.Start(t, harness.WithDataDir(data))
	// One slot, kept busy by the first invocation until the disk is full, so that the others pile up.
	s.Deploy("sink", "probe", "concurrency: 1\nscale: {max: 1}\ntimeout: 20m\n")
	busy := async(t, s, "sink/sleep?ms=900000", "")
	var ids []string

	body := strings.Repeat("x", 256<<10)
	full := false
	for range 2000 {
		resp, got := s.Do("POST", "/async/sink/count", body, nil)
		if resp.StatusCode == http.StatusAccepted {
			ids = append(ids, strings.TrimPrefix(resp.Header.Get("Location"), "/invocations/"))
			continue
		}
		refused(t, resp, got, http.StatusInsufficientStorage, "storage-full")
		full = true
		break
	}
	if !full {
		t.Fatalf("%d invocations of 256 KiB went into 192 MiB", len(ids))
	}
	if len(ids) < 100 {
		t.Errorf("refused after %d invocations only", len(ids))
	}
	if resp, got := s.Get("/healthz"); resp.StatusCode != 200 {
		t.Errorf("health with a full disk: %s %s", resp.Status, got)
	}
	cancel(t, s, busy)
	for _, id := range ids {
		if st := result(t, s, id); st.State != string(functions.StateSucceeded) {
			t.Fatalf("%s: %+v", id, st)
		}
	}
	// What was done made room: new work is taken without a manual step, if not at once.
	eventually(t, 10*time.Second, "the disk has room again", func() bool {
		resp, got := s.Do("POST", "/async/sink/count", "x", nil)
		if resp.StatusCode == http.StatusAccepted {
			return true
		}
		refused(t, resp, got, http.StatusInsufficientStorage, "storage-full")
		return false
	})
	if st := result(t, s, async(t, s, "sink/count", "x")); st.State != string(functions.StateSucceeded) {
		t.Errorf("after the disk had room: %+v", st)
	}
}
