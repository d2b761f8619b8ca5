//go:build e2e

package power

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// synced is a sync that succeeded: of which file, when, and how much the file had then.
type synced struct {
	file       int
	begun, end int64
	size       int
}

// What the story rests on, that hears what was said before a cut and nothing else: what a sync returned before the cut began is on disk, and no sync
// that begins after it succeeds. In between the kernel may say either.
func TestSyncsAroundACut(t *testing.T) {
	const rounds, files = 8, 4
	im := newImage(t, 64)
	before, between := 0, 0
	for range rounds {
		all, begun, ended := syncUntilTheCut(t, im, files)
		im.unmount()
		im.mount()
		var whole [files]int
		for n := range whole {
			data, err := os.ReadFile(numbered(im, n))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			whole[n] = len(data) - len(strings.TrimLeft(string(data), "x"))
		}
		for _, s := range all {
			switch {
			case s.end < begun:
				before++
				if whole[s.file] < s.size {
					t.Errorf("file %d had %d bytes when a sync returned before the cut, %d are on disk", s.file, s.size, whole[s.file])
				}
			case s.begun > ended:
				t.Error("a sync that began after the cut succeeded")
			default:
				between++
			}
		}
	}
	if before == 0 {
		t.Error("no sync returned before a cut")
	}
	t.Logf("%d syncs returned before a cut, %d succeeded during one", before, between)
}

func numbered(im *image, n int) string { return filepath.Join(im.dir, fmt.Sprint("file", n)) }

// syncUntilTheCut has files appended to and synced until the power is gone, and says which syncs succeeded and when the cut began and had ended.
func syncUntilTheCut(t *testing.T, im *image, files int) (all []synced, begun, ended int64) {
	t.Helper()
	var mu sync.Mutex
	var writing sync.WaitGroup
	var enough, stop atomic.Int64
	warm := make(chan struct{})
	for n := range files {
		writing.Go(func() {
			f, err := os.OpenFile(numbered(im, n), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for size := 0; stop.Load() == 0; {
				k, err := f.WriteString(strings.Repeat("x", 700))
				if err != nil {
					return
				}
				size += k
				s := synced{file: n, begun: now(), size: size}
				if unix.Fdatasync(int(f.Fd())) != nil {
					return
				}
				s.end = now()
				mu.Lock()
				all = append(all, s)
				mu.Unlock()
				if enough.Add(1) == 100 {
					close(warm)
				}
			}
		})
	}
	<-warm
	begun = now()
	im.cut()
	ended = now()
	stop.Store(1)
	writing.Wait()
	return all, begun, ended
}
