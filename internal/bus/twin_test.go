package bus_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// copyOf copies a server's data directory, as whoever clones a machine does.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// It makes files that others may read; what is secret is refused then.
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// wantTwin wants a server refused that has the name of another one, with what is to be done.
func wantTwin(t *testing.T, err error, says string) {
	t.Helper()
	f := fault.From(err)
	if err == nil || f.Code != fault.CodeConflict || !strings.Contains(f.Error(), "has this one's name, tatami-") || !strings.Contains(f.Error(), says) ||
		!strings.Contains(f.Hint, "on an empty --data-dir") {
		t.Errorf("%v; %+v", err, f)
	}
}

// A copy of a server's directory does not start beside the original, which goes on; nor does the original start beside a copy. On an empty directory
// the server takes its place.
func TestACopyOfAServerDoesNotStart(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	original := c.cfgs[0].DataDir
	c.close(0, 1)
	own := c.cfgs[1].DataDir
	c.cfgs[1].DataDir = copyOf(t, original)
	c.open(0)
	_, err := bus.Open(t.Context(), c.cfgs[1], discard())
	wantTwin(t, err, "is a copy of the directory of the server that was at "+c.cfgs[0].Cluster.Listen)
	insistently(t, "the others store", func() error {
		_, err := c.buses[0].Functions().Put(t.Context(), "default.one", functions.Function{Schema: 1, Namespace: "default", Name: "one"})
		return err
	})

	// The copy is there first: it is not known as one then, but by the original.
	c.close(0)
	c.open(1)
	_, err = bus.Open(t.Context(), c.cfgs[0], discard())
	wantTwin(t, err, "the server at "+c.cfgs[1].Cluster.Listen)
	wantTwin(t, err, "it is on a copy of "+original)
	c.close(1)
	c.cfgs[1].DataDir = own
	c.open(0, 1)
	insistently(t, "what was stored is there", func() error {
		_, _, err := c.buses[1].Functions().Get(t.Context(), "default.one")
		return err
	})
}

// Of servers that start together, one on a copy of another one's directory, the copy gives way once the embedded server tells of its twin, and the original
// waits on for the others. Who has met none waits, too.
func TestACopyOfAServerGivesWay(t *testing.T) {
	t.Parallel()
	const here, elsewhere = "10.0.0.1:6222", "10.0.0.2:6222"
	twin := `10.0.0.2:6222 - rid:7 - Remote server has a duplicate name: "tatami-x"`
	for was, want := range map[string]string{
		here: "", elsewhere: "is a copy of the directory of the server that was at " + elsewhere, "": "one of them is on a copy of the other's data directory",
	} {
		if err := bus.GiveWay(was, here, "10.0.0.2:6222 - rid:7 - TLS route handshake error: EOF"); err != nil {
			t.Errorf("a server that was at %q and met no twin: %v", was, err)
		}
		switch err := bus.GiveWay(was, here, twin, twin); want {
		case "":
			if err != nil {
				t.Errorf("the original: %v", err)
			}
		default:
			wantTwin(t, err, want)
		}
	}
}

// The same peer is told of once a minute, not with every try to connect.
func TestATwinIsToldOfNowAndAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const text = "Remote server has a duplicate name"
	if told := bus.Overheard(text, now, now.Add(time.Second), now.Add(time.Hour)); told != 2 {
		t.Errorf("it is told of %d times, want 2", told)
	}
	if told := bus.Overheard("something else", now); told != 0 {
		t.Errorf("something else is told of as that")
	}
}
