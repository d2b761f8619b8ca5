package worker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Whatever happens at the same time: never more slots than there are, never an end by stop while a slot is held, and a drain that is
// done exactly when the last slot came back.
func TestSlotsUnderConcurrency(t *testing.T) {
	t.Parallel()
	for round := range 300 {
		limit := 1 + rand.IntN(4)
		var s slots
		s.init(limit)
		if !s.open() || s.open() {
			t.Fatal("slots open once")
		}
		var held, most atomic.Int64
		var stopped, drained atomic.Bool
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-begin
				for range 50 {
					// A seen end comes before the try: what is admitted after it would be a request on a stopped instance.
					over := stopped.Load() || drained.Load()
					if taken, _ := s.admit(); !taken {
						continue
					}
					if over {
						t.Error("a slot was given after the end")
					}
					n := held.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					if stopped.Load() {
						t.Error("a slot is held of a stopped instance")
					}
					held.Add(-1)
					if !s.release() {
						t.Error("a held slot was not taken back")
					}
				}
			})
		}
		drain := round%2 == 0
		wg.Go(func() {
			<-begin
			if drain {
				s.close()
				drained.Store(true)
				<-s.drained
				if n := held.Load(); n != 0 {
					t.Errorf("drained with %d held", n)
				}
				return
			}
			for !s.closeIdle() {
			}
			if n := held.Load(); n != 0 {
				t.Errorf("stopped with %d held", n)
			}
			stopped.Store(true)
		})
		close(begin)
		wg.Wait()
		if int(most.Load()) > limit {
			t.Fatalf("%d slots held of %d", most.Load(), limit)
		}
		if taken, _ := s.admit(); s.held() != 0 || s.release() || taken || s.open() || s.freeze() {
			t.Fatal("the end is not final")
		}
		<-s.drained
	}
}

// An instance is stopped only while nobody has it.
func TestAHeldSlotKeepsItsInstance(t *testing.T) {
	t.Parallel()
	var s slots
	s.init(2)
	s.open()
	if taken, _ := s.admit(); !taken {
		t.Fatal("no slot is given")
	}
	if s.closeIdle() {
		t.Error("an instance is stopped whose slot is held")
	}
	if !s.release() || !s.closeIdle() {
		t.Error("an idle instance is not stopped")
	}
}

// An instance is frozen only while nobody has it, and who takes a slot of a frozen one is told.
func TestSlotsOfAFrozenInstance(t *testing.T) {
	t.Parallel()
	var s slots
	s.init(2)
	if s.freeze() {
		t.Error("frozen before it was open")
	}
	s.open()
	if taken, frozen := s.admit(); !taken || frozen || s.freeze() {
		t.Error("frozen while a slot is held")
	}
	s.release()
	if !s.freeze() || s.freeze() {
		t.Error("not frozen once")
	}
	if taken, frozen := s.admit(); !taken || !frozen {
		t.Error("whoever takes a slot is not told that it is frozen")
	}
	s.thaw()
	if taken, frozen := s.admit(); !taken || frozen {
		t.Error("thawed, and frozen still")
	}
}

func BenchmarkAdmitRelease(b *testing.B) {
	var s slots
	s.init(1000)
	s.open()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if taken, _ := s.admit(); taken {
				s.release()
			}
		}
	})
}
