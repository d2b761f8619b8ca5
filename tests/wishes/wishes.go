// Package wishes is, for tests, a keeper of processors, and the kernel that it asks.
package wishes

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/awake"
)

// mark is what Settle tells itself.
const mark = 7

// patience is how long a loaded machine may take for what takes a moment.
const patience = 10 * time.Second

// Wishes are those of a keeper.
type Wishes struct {
	t    testing.TB
	fifo *os.File
	told chan int32
	// awake is what was told last, of what was waited for.
	awake atomic.Bool
	// lost says that something was waited for in vain: nothing more is.
	lost atomic.Bool
}

// New makes a keeper that lives as long as the test.
func New(t testing.TB, p awake.Policy) (*awake.Keeper, *Wishes) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "latency")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Open for both, it is there before anybody else has it open, and does not end when nobody has.
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &Wishes{t: t, fifo: fifo, told: make(chan int32, 1024)}
	over, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		w.read(fifo, over)
	}()
	k := awake.New(p)
	if err := k.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		close(over)
		fifo.Close()
		<-read
	})
	w.Ends("the opening")
	return k, w
}

func (w *Wishes) read(fifo io.Reader, over <-chan struct{}) {
	for {
		var b [4]byte
		if _, err := io.ReadFull(fifo, b[:]); err != nil {
			return
		}
		select {
		case w.told <- int32(binary.NativeEndian.Uint32(b[:])):
		case <-over:
			return
		}
	}
}

// Begins waits until the processors are to stay awake, for which there is a reason.
func (w *Wishes) Begins(why string) {
	w.t.Helper()
	w.next(true, why)
}

// Ends waits until they may sleep.
func (w *Wishes) Ends(why string) {
	w.t.Helper()
	w.next(false, why)
}

func (w *Wishes) next(want bool, why string) {
	w.t.Helper()
	if w.lost.Load() {
		return
	}
	select {
	case got := <-w.told:
		w.awake.Store(got == 0)
		if (got == 0) != want {
			w.t.Errorf("%s: the processors are to stay awake: %v, want %v", why, !want, want)
		}
	case <-time.After(patience):
		w.lost.Store(true)
		w.t.Errorf("%s: nothing was asked of the kernel, want %v", why, want)
	}
}

// None fails the test where a wish was told by now that nobody has waited for.
func (w *Wishes) None(why string) {
	w.t.Helper()
	for _, got := range w.untilNow() {
		w.t.Errorf("%s: the processors were told %d", why, got)
	}
}

// untilNow is what was told by now and not waited for.
func (w *Wishes) untilNow() (all []int32) {
	w.t.Helper()
	if _, err := w.fifo.Write(binary.NativeEndian.AppendUint32(nil, mark)); err != nil {
		w.t.Fatal(err)
	}
	for {
		select {
		case got := <-w.told:
			if got == mark {
				return all
			}
			w.awake.Store(got == 0)
			all = append(all, got)
		case <-time.After(patience):
			w.t.Fatal("the mark was not told")
		}
	}
}

// Settle waits until they may sleep, whatever was told since, after the last thing that keeps them awake.
func (w *Wishes) Settle() {
	w.t.Helper()
	w.untilNow()
	if w.awake.Load() {
		w.Ends("nothing more")
	}
}
