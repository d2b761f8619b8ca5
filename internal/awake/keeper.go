package awake

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// LatencyFile takes a wish for how late, in microseconds, a sleeping processor may be. The kernel keeps it while the file is open.
	LatencyFile = "/dev/cpu_dma_latency"
	// atOnce has processors without work look for some instead of sleeping; anyTime is no wish.
	atOnce, anyTime = int32(0), int32(-1)
)

// Policy says what processors are kept awake for.
type Policy uint8

// The policies.
const (
	// Never keeps no processor awake.
	Never Policy = iota
	// Starts keeps them awake while functions start, for a share of the time at most.
	Starts
	// Calls keeps them awake while functions start, and for moments after each time that bytes of a call come or go.
	Calls
)

// String is the word for a policy, as the flag --stay-awake has it.
func (p Policy) String() string { return [...]string{"never", "starts", "calls"}[p] }

// Keeper keeps the processors awake by a policy. The zero value, and nil, keep none. It is safe for concurrent use.
type Keeper struct {
	policy Policy
	// calls goes on while bytes come and go, coming while functions are about to start.
	calls, coming spell

	mu sync.Mutex
	// file is nil where the kernel takes no such wish, or none is to be made.
	file   *os.File
	starts starts
	// wished says that the kernel was told to keep them awake.
	wished bool
}

// New makes a keeper, which does nothing before Open.
func New(p Policy) *Keeper { return &Keeper{policy: p} }

// Open makes the keeper work.
func (k *Keeper) Open(path string) error {
	if k.policy == Never {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("ask for processors that do not sleep: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file = f
	// To open it is a wish already.
	if err := k.tell(anyTime); err != nil {
		k.file = nil
		f.Close()
		return err
	}
	if k.policy == Calls {
		k.calls.state.Store(over)
	} else {
		k.coming.state.Store(over)
	}
	return nil
}

// Close ends the wish, and the keeper does nothing any more.
func (k *Keeper) Close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == nil {
		return
	}
	k.calls.close()
	k.coming.close()
	k.starts.end(time.Now())
	k.settle()
	k.file.Close()
	k.file = nil
}

// Touch notes that bytes of a call have come, or go. While calls go through it costs a look at one word.
func (k *Keeper) Touch() {
	if k != nil && k.calls.state.Load() >= quiet {
		k.touch(&k.calls)
	}
}

// Expect notes that a function is about to start, before Count does.
func (k *Keeper) Expect() {
	if k != nil && k.coming.state.Load() >= quiet {
		k.touch(&k.coming)
	}
}

// Count notes that more functions start, or fewer.
func (k *Keeper) Count(n int) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count(n)
}

// count is Count; k.mu is held.
func (k *Keeper) count(n int) {
	if k.file != nil {
		k.starts.count(n, time.Now(), k.cut)
		k.settle()
	} else {
		k.starts.n += n
	}
}

// cut ends what starts may have in one go.
func (k *Keeper) cut(since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.starts.since.Equal(since) {
		k.starts.end(time.Now())
		k.settle()
	}
}

func (k *Keeper) touch(s *spell) {
	if !s.touch() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.begin(func() { k.look(s) }) {
		k.changed(s, 1)
	}
}

// look is what a spell's timer does.
func (k *Keeper) look(s *spell) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.look() {
		k.changed(s, -1)
	}
}

// changed goes by that a spell has begun, or ended; k.mu is held.
func (k *Keeper) changed(s *spell, n int) {
	if s == &k.coming {
		k.count(n)
	} else {
		k.settle()
	}
}

// settle tells the kernel what is wished now; k.mu is held. A wish that it does not take costs time and nothing else.
func (k *Keeper) settle() {
	want := k.calls.on || !k.starts.since.IsZero()
	if k.file == nil || want == k.wished {
		return
	}
	k.wished = want
	if want {
		_ = k.tell(atOnce)
	} else {
		_ = k.tell(anyTime)
	}
}

func (k *Keeper) tell(latency int32) error {
	if _, err := k.file.Write(binary.NativeEndian.AppendUint32(nil, uint32(latency))); err != nil {
		return fmt.Errorf("ask for processors that do not sleep: %w", err)
	}
	return nil
}
