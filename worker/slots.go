package worker

import (
	"sync"
	"sync/atomic"
)

// slots are the slots of one instance: how many are held, and whether more may be, in one word. Whoever closes it for a stop does so only
// while none is held; whoever closes it for a drain sees how many are; and whoever freezes the instance does so only while none is held.
type slots struct {
	word atomic.Uint64
	// limit is how many there are; set before open.
	limit uint64

	once    sync.Once
	drained chan struct{}
}

const (
	slotsOpen   = 1 << 32 // slots may be taken
	slotsEnded  = 1 << 33 // none may be taken ever again
	slotsFrozen = 1 << 34 // the instance may not run: who takes a slot sees to it that it does
	slotsCount  = slotsOpen - 1
)

func (s *slots) init(n int) {
	s.limit = uint64(n)
	s.drained = make(chan struct{})
}

// open lets slots be taken; false when they were closed before.
func (s *slots) open() bool { return s.word.CompareAndSwap(0, slotsOpen) }

// admit takes a slot, and says whether the instance must be thawed for it.
func (s *slots) admit() (taken, frozen bool) {
	for {
		w := s.word.Load()
		if w&slotsOpen == 0 || w&slotsCount >= s.limit {
			return false, false
		}
		if s.word.CompareAndSwap(w, w+1) {
			return true, w&slotsFrozen != 0
		}
	}
}

// freeze marks the instance as frozen; false while a slot is held, and once it is closed.
func (s *slots) freeze() bool { return s.word.CompareAndSwap(slotsOpen, slotsOpen|slotsFrozen) }

// thaw takes the mark away.
func (s *slots) thaw() { s.word.And(^uint64(slotsFrozen)) }

// release gives a slot back; false when none was held.
func (s *slots) release() bool {
	for {
		w := s.word.Load()
		if w&slotsCount == 0 {
			return false
		}
		if s.word.CompareAndSwap(w, w-1) {
			if w-1 == slotsEnded {
				s.once.Do(func() { close(s.drained) })
			}
			return true
		}
	}
}

// closeIdle ends the taking of slots unless one is held.
func (s *slots) closeIdle() bool {
	for {
		w := s.word.Load()
		if w&slotsCount != 0 {
			return false
		}
		if s.word.CompareAndSwap(w, slotsEnded) {
			s.once.Do(func() { close(s.drained) })
			return true
		}
	}
}

// close ends the taking of slots; drained is closed once none is held.
func (s *slots) close() {
	for {
		w := s.word.Load()
		if s.word.CompareAndSwap(w, w&slotsCount|slotsEnded) {
			if w&slotsCount == 0 {
				s.once.Do(func() { close(s.drained) })
			}
			return
		}
	}
}

// isOpen reports whether slots may be taken, where there are any.
func (s *slots) isOpen() bool { return s.word.Load()&slotsOpen != 0 }

// roomy reports whether no more than half of the slots are held.
func (s *slots) roomy() bool { return 2*(s.word.Load()&slotsCount) <= s.limit }

func (s *slots) held() int { return int(s.word.Load() & slotsCount) }
