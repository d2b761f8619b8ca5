package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// instance is one instance on this node.
type instance struct {
	record Record
	// revision is nil for an adopted instance.
	revision *functions.Revision
	adopted  bool
	slots    slots
	keeping  keeping
	frost    frost
	// lastUsed is how long after born a slot was last given back; 0: never. So a clock that is set makes nothing look idle, or used.
	lastUsed atomic.Int64
	born     time.Time
	// box is set before the slots are opened.
	box   atomic.Pointer[sandboxBox]
	usage atomic.Pointer[functions.Usage]

	// startCtx ends when the start is called off.
	startCtx context.Context
	callOff  context.CancelFunc
	// asked is closed once an end was asked for.
	asked chan struct{}
	// sooner tells that the deadline moved.
	sooner chan struct{}

	mu     sync.Mutex
	state  functions.InstanceState
	reason string
	since  time.Time
	ready  time.Time
	phases functions.Phases
	pid    int
	end    *end
	// capture has its output captured from now on, once; nil while it has no sandbox.
	capture func()
	// unavailable says that it could not start for want of something that was away.
	unavailable bool
}

type sandboxBox struct{ sandbox.Sandbox }

// end is what is to become of an instance that shall end.
type end struct {
	reason string
	// deadline is when slots that are still held no longer count.
	deadline time.Time
	// leave means that the sandbox goes on without this worker.
	leave bool
}

func newInstance(ctx context.Context, r Record, now time.Time) *instance {
	in := &instance{
		record: r, state: functions.InstanceStarting, since: now, phases: r.Phases, born: now,
		asked: make(chan struct{}), sooner: make(chan struct{}, 1),
	}
	in.frost.thawed = make(chan struct{}, 1)
	in.slots.init(r.Slots)
	in.startCtx, in.callOff = context.WithCancel(ctx)
	return in
}

func (in *instance) id() functions.InstanceID { return in.record.Instance }

func (in *instance) sandbox() sandbox.Sandbox {
	if b := in.box.Load(); b != nil {
		return b.Sandbox
	}
	return nil
}

// captured returns once the instance's output is being captured, if it has a sandbox.
func (in *instance) captured() {
	in.mu.Lock()
	capture := in.capture
	in.mu.Unlock()
	if capture != nil {
		capture()
	}
}

// setState is for states within the life of the instance; the last one is told by the worker's gone.
func (in *instance) setState(s functions.InstanceState, reason string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.setStateLocked(s, reason)
}

func (in *instance) setStateLocked(s functions.InstanceState, reason string) {
	if in.state != s {
		in.since = time.Now()
	}
	in.state, in.reason = s, reason
}

// askEnd asks for the end. It returns false when one was asked for before; then only the deadline may move closer.
func (in *instance) askEnd(e end) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.askEndLocked(e)
}

func (in *instance) askEndLocked(e end) bool {
	if in.end != nil {
		if e.deadline.Before(in.end.deadline) && !e.leave {
			in.end.deadline = e.deadline
			select {
			case in.sooner <- struct{}{}:
			default:
			}
		}
		return false
	}
	in.end = &e
	if in.state.Serves() && !e.leave {
		in.setStateLocked(functions.InstanceDraining, e.reason)
	}
	in.callOff()
	close(in.asked)
	return true
}

func (in *instance) ending() *end {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.end == nil {
		return nil
	}
	e := *in.end
	return &e
}

// becomeReady makes the instance ready, unless an end was asked for meanwhile.
func (in *instance) becomeReady(now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.end != nil || !in.slots.open() {
		return false
	}
	in.ready = now
	in.setStateLocked(functions.InstanceReady, "")
	return true
}

// endpoint is what gateways get to know; false while the instance takes no requests.
func (in *instance) endpoint(node functions.NodeID) (bus.Endpoint, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := &in.record
	return bus.Endpoint{
		Instance: r.Instance, Node: node, Namespace: r.Namespace, Function: r.Function, Revision: r.Revision, Slots: r.Slots,
		Started: r.Started, Ready: in.ready, Phases: in.phases, Frozen: in.state == functions.InstanceFrozen,
	}, in.state.Serves() && in.end == nil
}

func (in *instance) setUnavailable(v bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.unavailable = v
}

// report is the instance as the scheduler gets to know it.
func (in *instance) report() bus.InstanceReport {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := &in.record
	out := bus.InstanceReport{
		Instance: r.Instance, Namespace: r.Namespace, Function: r.Function, Revision: r.Revision,
		State: in.state, Reason: in.reason, Since: in.since, Started: r.Started, Slots: r.Slots, Held: in.slots.held(),
		Reserved: r.Limits.Resources(), Phases: in.phases, Adopted: in.adopted, PID: in.pid,
		Unavailable: in.unavailable,
	}
	if at := in.lastUsed.Load(); at != 0 {
		now := time.Now()
		out.LastUsed = now.Add(time.Duration(at) - now.Sub(in.born))
	}
	if u := in.usage.Load(); u != nil {
		out.Usage = *u
	}
	return out
}
