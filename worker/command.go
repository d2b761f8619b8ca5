package worker

import (
	"runtime"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const architecture = runtime.GOARCH

// command takes one command from the bus.
func (w *Worker) command(data []byte) {
	now := time.Now()
	c, err := bus.Decode[bus.Command](data)
	if err != nil {
		w.log.Error("a command was not understood", "err", err)
		return
	}
	w.take(c, now)
}

// Hear takes a command of a scheduler of this process, as from the bus. It is false where it does not: then the bus has to carry it.
func (w *Worker) Hear(c *bus.Command) bool {
	if c.Node != w.cfg.Node || !w.hears.Load() {
		return false
	}
	w.take(*c, time.Now())
	return true
}

// take takes one command. It returns at once: what takes time runs in the instance's goroutine.
func (w *Worker) take(c bus.Command, now time.Time) {
	whole := c.Action == bus.ActionReport && c.Instance == ""
	if c.Node != w.cfg.Node || !whole && c.Action != bus.ActionPrepare && !c.Instance.Valid() {
		w.log.Error("a command is for somebody else", "node", c.Node, "inst", c.Instance)
		return
	}
	w.mu.Lock()
	old := c.Epoch < w.epoch
	w.epoch = max(w.epoch, c.Epoch)
	w.mu.Unlock()
	if old {
		w.log.Warn("a command of an earlier scheduler was refused", "inst", c.Instance, "epoch", c.Epoch)
		return
	}
	switch c.Action {
	case bus.ActionStart:
		w.commandStart(c, now)
	case bus.ActionStop:
		w.commandStop(c)
	case bus.ActionDrain:
		w.commandDrain(c, now)
	case bus.ActionReport:
		w.commandReport(c)
	case bus.ActionPrepare:
		w.commandPrepare(c)
	default:
		w.log.Error("a command asks for an unknown action", "inst", c.Instance, "action", string(c.Action))
	}
}

func (w *Worker) commandStart(c bus.Command, now time.Time) {
	if in := w.lookup(c.Instance); in != nil {
		w.out.changed(in)
		return
	}
	if w.repeatEnd(c.Instance) {
		return
	}
	if c.Revision == nil || c.Revision.Ref().ValidateRunning() != nil {
		w.log.Error("a start command names no revision", "inst", c.Instance)
		return
	}
	if live := int64(len(*w.table.Load())); live >= w.allocatable.Instances {
		w.refuse(c, now, "the node holds as many instances as it may")
		return
	}
	in := newInstance(w.base, recordOf(c, now), now)
	in.revision = c.Revision
	if !w.register(in, func() { w.start(in) }) {
		in.callOff()
		w.refuse(c, now, "the worker is stopping")
	}
}

// refuse reports that the instance will not be. The function is not to blame, so its waiters learn nothing.
func (w *Worker) refuse(c bus.Command, now time.Time, reason string) {
	r := newInstance(w.base, recordOf(c, now), now)
	r.callOff()
	r.setState(functions.InstanceFailed, reason)
	last := r.report()
	w.mu.Lock()
	w.past.add(last)
	w.mu.Unlock()
	w.out.gone(last)
	w.log.Warn("a start was refused", "fn", r.record.Ref().String(), "inst", c.Instance, "err", reason)
}

// repeatEnd reports an instance's end again.
func (w *Worker) repeatEnd(id functions.InstanceID) bool {
	w.mu.Lock()
	last, ok := w.past.ends[id]
	w.mu.Unlock()
	if ok {
		w.out.gone(last)
	}
	return ok
}

// commandStop ends the instance unless a slot is held, or was a moment ago. Refused, it reports how many are, and when the last one was.
func (w *Worker) commandStop(c bus.Command) {
	in := w.lookup(c.Instance)
	if in == nil {
		w.unknown(c)
		return
	}
	e := end{reason: c.Reason, deadline: time.Now()}
	if in.callOffStart(e) {
		return
	}
	if q := c.Quiet.Std(); q > 0 && in.idleFor(time.Now()) < q || !in.slots.closeIdle() {
		w.recall(in)
		w.out.changed(in)
		return
	}
	if in.askEnd(e) {
		w.out.stopped(in, c.Reason)
	} else {
		w.out.changed(in)
	}
}

// commandDrain ends the instance once no slot is held, or at the deadline.
func (w *Worker) commandDrain(c bus.Command, now time.Time) {
	in := w.lookup(c.Instance)
	if in == nil {
		w.unknown(c)
		return
	}
	e := end{reason: c.Reason, deadline: c.Deadline}
	if e.deadline.IsZero() {
		e.deadline = now.Add(in.record.Timeout.Std())
	}
	if in.callOffStart(e) {
		return
	}
	w.shut(in)
	if in.askEnd(e) {
		w.out.departed(in, functions.InstanceDraining, c.Reason)
	} else {
		w.out.changed(in)
	}
}

// End closes the instance to new slots and stops it, whoever holds one: a gateway gave up what it runs. For an instance that is gone it does nothing.
func (w *Worker) End(node functions.NodeID, inst functions.InstanceID, reason string) error {
	if node != w.cfg.Node {
		return fault.New(fault.CodeUnavailable, "node %s is not this one", node)
	}
	in := w.lookup(inst)
	if in == nil {
		return nil
	}
	w.shut(in)
	if in.askEnd(end{reason: reason, deadline: time.Now()}) {
		w.out.departed(in, functions.InstanceDraining, reason)
	} else {
		w.out.changed(in)
	}
	return nil
}

// commandReport tells what the sender missed.
func (w *Worker) commandReport(c bus.Command) {
	if c.Instance == "" {
		w.out.wanted()
	} else if in := w.lookup(c.Instance); in != nil {
		w.out.changed(in)
	} else {
		w.unknown(c)
	}
}

// unknown answers a command about an instance that is not here: the sender's picture is old.
func (w *Worker) unknown(c bus.Command) {
	if !w.repeatEnd(c.Instance) {
		w.out.report()
	}
}

// callOffStart asks for the end of an instance that is not ready; false when it was.
func (in *instance) callOffStart(e end) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state != functions.InstanceStarting {
		return false
	}
	in.askEndLocked(e)
	return true
}
