//go:build linux

package containerd

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// latencyFile takes a wish for how late, in microseconds, a sleeping processor may be. The kernel keeps it while the file is open.
	latencyFile = "/dev/cpu_dma_latency"
	// atOnce has processors without work look for some instead of sleeping; anyTime is no wish.
	atOnce, anyTime = int32(0), int32(-1)

	// awakeShare is the part of the time, one of so many, for which processors may be kept awake, up to mostAwake in one go. It does not begin for
	// less than leastAwake.
	awakeShare = 10
	mostAwake  = 500 * time.Millisecond
	leastAwake = 20 * time.Millisecond
)

// awake keeps the processors from sleeping while functions start. A start goes from process to process a dozen times, and where the next one's
// processor sleeps it waits until that is awake: in a virtual machine about as long as the work itself takes. Where starts go on and on the
// processors hardly sleep, and are left alone: they are kept awake for a share of the time only.
type awake struct {
	mu sync.Mutex
	// file is nil where the kernel takes no such wish, or none is to be made.
	file   *os.File
	starts int
	// left is how long they may be kept awake, of mostAwake, as of at; since is when that began, zero while they are not.
	left      time.Duration
	at, since time.Time
	end       *time.Timer
}

// open makes begin work.
func (a *awake) open(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.file = f
	// To open it is a wish already.
	return a.wishLocked(anyTime)
}

func (a *awake) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		a.endLocked(time.Now())
		a.file.Close()
		a.file = nil
	}
}

// count notes that more functions start, or fewer. A wish that the kernel does not take costs time and nothing else.
func (a *awake) count(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.starts
	a.starts += n
	switch {
	case before == 0 && a.starts > 0:
		a.beginLocked(time.Now())
	case before > 0 && a.starts == 0:
		a.endLocked(time.Now())
	}
}

func (a *awake) beginLocked(now time.Time) {
	if a.file == nil {
		return
	}
	a.left = min(mostAwake, a.left+now.Sub(a.at)/awakeShare)
	if a.at = now; a.left < leastAwake {
		return
	}
	a.since = now
	a.end = time.AfterFunc(a.left, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.since.Equal(now) {
			a.endLocked(time.Now())
		}
	})
	_ = a.wishLocked(atOnce)
}

func (a *awake) endLocked(now time.Time) {
	if a.since.IsZero() {
		return
	}
	a.end.Stop()
	a.left, a.at, a.since = max(0, a.left-now.Sub(a.since)), now, time.Time{}
	_ = a.wishLocked(anyTime)
}

func (a *awake) wishLocked(latency int32) error {
	if a.file == nil {
		return nil
	}
	if _, err := a.file.Write(binary.NativeEndian.AppendUint32(nil, uint32(latency))); err != nil {
		return fmt.Errorf("ask for processors that do not sleep: %w", err)
	}
	return nil
}
