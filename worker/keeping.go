package worker

import (
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// wantedFor is for how long after somebody wanted a slot that was not there no slot of the instance may be kept.
const wantedFor = time.Second

// keeping is whether gateways elsewhere may keep an instance's slots that their calls gave back, for calls to come.
type keeping struct {
	// told says that one was told so since the last recall.
	told atomic.Bool
	// wanted is how long after the instance's birth a slot was wanted that was not there; 0: never.
	wanted atomic.Int64
}

// mayKeep reports whether the gateway that just took a slot may keep it; alone says that no other one is known. What it keeps nobody else can take: where
// there are others it may do so while there is room enough. Who is told that it may hears of it when it may no more.
func (in *instance) mayKeep(alone bool) bool {
	if !alone && !in.slots.roomy() {
		return false
	}
	// Before the looks: whoever changes what they see recalls after that.
	in.keeping.told.Store(true)
	wanted := time.Duration(in.keeping.wanted.Load())
	return in.slots.isOpen() && (wanted == 0 || time.Since(in.born)-wanted > wantedFor)
}

// full notes that a slot was wanted and none was there.
func (w *Worker) full(in *instance) {
	in.keeping.wanted.Store(max(1, int64(time.Since(in.born))))
	w.recall(in)
}

// shut ends the taking of the instance's slots.
func (w *Worker) shut(in *instance) {
	in.slots.close()
	w.recall(in)
}

// recall asks for the slots that gateways keep.
func (w *Worker) recall(in *instance) {
	if in.keeping.told.Swap(false) {
		w.listener.recall(in.id())
	}
}

// alone reports whether the gateway of the only session is the only one that takes slots here.
func (l *listener) alone() bool {
	if l.w.near.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sessions) == 1
}

// recall asks every session for what it keeps of the instance's slots.
func (l *listener) recall(inst functions.InstanceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		s.recall(inst)
	}
}
