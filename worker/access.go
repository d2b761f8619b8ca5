package worker

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/worker/logs"
)

// Admit takes a slot of an instance; Release gives it back. It fails with unavailable when the instance is not here, not ready, draining or
// full: try another one. While a slot is held the instance is neither stopped for being idle nor frozen; a frozen one runs again when Admit returns.
func (w *Worker) Admit(node functions.NodeID, inst functions.InstanceID) error {
	if node != w.cfg.Node {
		return fault.New(fault.CodeUnavailable, "node %s is not this one", node)
	}
	if !w.near.Load() {
		w.near.Store(true)
	}
	_, err := w.admit(inst)
	return err
}

// admit takes a slot of an instance.
func (w *Worker) admit(inst functions.InstanceID) (*instance, error) {
	in := w.lookup(inst)
	if in == nil {
		return nil, fault.New(fault.CodeUnavailable, "instance %s is gone", inst)
	}
	taken, frozen := in.slots.admit()
	if !taken {
		w.full(in)
		return nil, fault.New(fault.CodeUnavailable, "instance %s has no free slot", inst)
	}
	if !frozen {
		return in, nil
	}
	begun := time.Now()
	if err := in.thaw(); err != nil {
		in.slots.release()
		w.log.Error("a frozen instance cannot be thawed", "fn", in.record.Ref().String(), "inst", inst, "err", err)
		return nil, fault.Wrap(fault.CodeUnavailable, err, "instance %s cannot be thawed", inst)
	}
	w.thaws.count.Add(1)
	w.thaws.took.Add(int64(time.Since(begun)))
	return in, nil
}

// Thaws is how many slots were taken of frozen instances, and how long that took together until they ran.
func (w *Worker) Thaws() (count uint64, took time.Duration) {
	return w.thaws.count.Load(), time.Duration(w.thaws.took.Load())
}

// Release gives a slot back. For an instance that is gone it does nothing.
func (w *Worker) Release(node functions.NodeID, inst functions.InstanceID) {
	if node != w.cfg.Node {
		return
	}
	in := w.lookup(inst)
	if in == nil {
		return
	}
	in.lastUsed.Store(max(1, int64(time.Since(in.born))))
	if !in.slots.release() {
		w.log.Error("a slot was given back that nobody held", "inst", inst)
	}
}

// Dial connects to an instance's port. Whoever does holds a slot.
func (w *Worker) Dial(ctx context.Context, node functions.NodeID, inst functions.InstanceID) (net.Conn, error) {
	if node != w.cfg.Node {
		return nil, fault.New(fault.CodeUnavailable, "node %s is not this one", node)
	}
	sb, err := w.box(inst)
	if err != nil {
		return nil, err
	}
	return sb.Dial(ctx)
}

// Exec runs a further process in an instance and returns its exit code.
func (w *Worker) Exec(ctx context.Context, inst functions.InstanceID, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if len(args) == 0 {
		return 0, fault.New(fault.CodeInvalidRequest, "no command is given").WithOp("exec").WithField("args")
	}
	sb, err := w.box(inst)
	if err != nil {
		return 0, err
	}
	if in := w.lookup(inst); in != nil {
		unpin, err := in.pin()
		if err != nil {
			return 0, fault.Wrap(fault.CodeUnavailable, err, "instance %s cannot be thawed", inst)
		}
		defer unpin()
	}
	return sb.Exec(ctx, args, stdin, stdout, stderr)
}

func (w *Worker) box(inst functions.InstanceID) (sandbox.Sandbox, error) {
	if in := w.lookup(inst); in != nil {
		if sb := in.sandbox(); sb != nil {
			return sb, nil
		}
		return nil, fault.New(fault.CodeUnavailable, "instance %s is still starting", inst)
	}
	return nil, fault.New(fault.CodeNotFound, "instance %s is not running on this node", inst).WithHint("see tatami inst ls")
}

// Logs calls fn for every line asked for, oldest first, and goes on with new ones if the query follows, until ctx ends.
func (w *Worker) Logs(ctx context.Context, q bus.LogQuery, fn func(bus.LogLine) error) error {
	if q.Ref == (functions.Ref{}) {
		w.mu.Lock()
		last, ok := w.past.ends[q.Instance]
		w.mu.Unlock()
		if ok {
			q.Ref = last.Ref()
		}
	}
	for _, in := range w.sorted() {
		if in.id() == q.Instance || in.record.Ref() == q.Ref {
			in.captured()
		}
	}
	in := logs.Query{Ref: q.Ref, Instance: q.Instance, Revision: q.Revision, Since: q.Since, Tail: q.Tail, Follow: q.Follow, Live: q.Live}
	return w.logs.Query(ctx, in, func(l logs.Line) error {
		return fn(bus.LogLine{Time: l.Time, Instance: l.Instance, Revision: l.Revision, Stream: string(l.Stream), Text: l.Text})
	})
}

// Instances lists the instances on the node, by id.
func (w *Worker) Instances() []bus.InstanceReport {
	var out []bus.InstanceReport
	for _, in := range w.sorted() {
		out = append(out, in.report())
	}
	return out
}
