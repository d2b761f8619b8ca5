package worker

import (
	"testing"
	"testing/synctest"
	"time"
)

// Who wanted a slot and found none gets the next one: for a while none is kept.
func TestNoSlotIsKeptThatIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := newInstance(t.Context(), Record{Slots: 3}, time.Now())
		defer in.callOff()
		w := &Worker{}
		if in.mayKeep(true) {
			t.Error("a slot of an instance that is not ready may be kept")
		}
		in.slots.open()
		in.slots.admit()
		if !in.mayKeep(true) || !in.mayKeep(false) {
			t.Error("one slot of three may not be kept")
		}
		in.slots.admit()
		if !in.mayKeep(true) || in.mayKeep(false) {
			t.Error("of two slots of three one may be kept by the only gateway, and not by one of several")
		}
		in.keeping.told.Store(false) // there is no listener
		w.full(in)
		time.Sleep(wantedFor)
		if in.mayKeep(true) {
			t.Error("a slot may be kept that was wanted")
		}
		time.Sleep(time.Microsecond)
		if !in.mayKeep(true) {
			t.Error("a slot may never be kept again")
		}
		in.keeping.told.Store(false)
		w.shut(in)
		if in.mayKeep(true) {
			t.Error("a slot of an instance that drains may be kept")
		}
	})
}
