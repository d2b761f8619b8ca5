package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// adopt takes over what an earlier run left: what runs and has its record becomes ready again, everything else is removed with a reason.
func (w *Worker) adopt(ctx context.Context) error {
	list, err := w.driver.List(ctx)
	if err != nil {
		return fmt.Errorf("listing the sandboxes of an earlier run: %w", err)
	}
	now := time.Now()
	ids := make([]functions.InstanceID, 0, len(list))
	for _, sb := range list {
		ids = append(ids, sb.Info().ID)
	}
	w.logs.Prune(ids)
	for _, sb := range list {
		info := sb.Info()
		r, bad := readRecord(info.Record, info.ID)
		if bad != nil {
			r = Record{Instance: info.ID, Started: info.Created, Slots: 1}
		}
		in := newInstance(w.base, r, now)
		// How long its start took, the earlier run has told.
		in.adopted, in.phases = true, functions.Phases{}
		exit := exitOf(sb)
		life := func() { w.carry(in, sb, func() {}) }
		if bad != nil || exit != nil || info.PID == 0 {
			life = func() { w.remove(in, sb, bad) }
		}
		w.register(in, life)
	}
	if len(list) > 0 {
		w.log.Info("sandboxes of an earlier run found", "count", len(list))
	}
	return nil
}

// remove removes what cannot be adopted. Its last output is kept if it is known whose it is.
func (w *Worker) remove(in *instance, sb sandbox.Sandbox, bad error) {
	defer in.callOff()
	exit := exitOf(sb)
	state, reason := functions.InstanceFailed, ""
	switch {
	case bad != nil:
		state, reason = functions.InstanceStopped, "removed after a restart: "+bad.Error()
	case exit != nil:
		reason = describe(*exit, in.record.Limits) + " while the worker was away"
	default:
		reason = "ended while the worker was away"
	}
	if bad == nil {
		w.attach(in, sb)
	}
	in.askEnd(end{reason: reason})
	in.setState(functions.InstanceDraining, reason)
	w.stop(in, sb, w.cfg.Grace)
	w.gone(in, state, reason, exit, w.finish(in, reason), false)
}
