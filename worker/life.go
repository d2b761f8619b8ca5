package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/worker/logs"
)

const (
	// failureGrace is the longest grace of a process that never became ready.
	failureGrace = 2 * time.Second
	// captureLate is how long the output of an instance that starts waits to be captured: until then the function has the processors first. What it
	// writes meanwhile, the sandbox's side keeps.
	captureLate = 25 * time.Millisecond
	// turnTime is how long an instance that starts may keep others from starting once its process runs.
	turnTime = 25 * time.Millisecond
	// failureLines is how many of its last lines a failed instance reports, each cut to failureLine bytes.
	failureLines = 50
	failureLine  = 1024
	// unseen is the exit code that containerd gives a process whose end it missed.
	unseen = 255
	// stopPatience is how long a removal may take beyond the grace before it is tried again.
	stopPatience = 30 * time.Second
)

// start is the life of an instance that a command began.
func (w *Worker) start(in *instance) {
	defer in.callOff()
	defer w.artifacts.hold(in.revision.Artifact.Digest)()
	w.out.begun(in)
	err := w.prepare(in)
	if err == nil {
		err = w.starts.take(in.startCtx, in.record.Ref())
	}
	if err != nil {
		w.endStart(in, nil, err)
		return
	}
	give := sync.OnceFunc(w.starts.give)
	sb, err := w.create(in)
	if err != nil {
		give()
		w.endStart(in, nil, err)
		return
	}
	// Those that are nearly there go first: many that start at once slow each other down, and are looked after more often.
	late := time.AfterFunc(turnTime, give)
	w.carry(in, sb, func() {
		late.Stop()
		give()
	})
}

// carry is the life of an instance from the moment its process runs; started is called when it takes requests, or never will.
func (w *Worker) carry(in *instance, sb sandbox.Sandbox, started func()) {
	defer in.callOff()
	begun := time.Now()
	w.attach(in, sb)
	if in.adopted {
		// The worker that froze it is gone.
		if err := sb.Thaw(); err != nil {
			w.endStart(in, sb, err)
			return
		}
	}
	err := w.awaitReady(in, sb)
	started()
	if err != nil {
		w.endStart(in, sb, err)
		return
	}
	now := time.Now()
	in.mu.Lock()
	if !in.adopted {
		in.phases.Ready = functions.Duration(now.Sub(begun))
	}
	in.mu.Unlock()
	if !in.becomeReady(now) {
		w.endStart(in, sb, context.Canceled)
		return
	}
	w.out.ready(in)
	w.log.Info("instance ready", "fn", in.record.Ref().String(), "rev", in.record.Revision, "inst", in.id(),
		"dur_ms", now.Sub(in.record.Started).Milliseconds(), "adopted", in.adopted)
	w.keep(in, sb)
}

// prepare makes the artifact ready.
func (w *Worker) prepare(in *instance) error {
	ctx, artifact := in.startCtx, in.revision.Artifact
	if slices.Contains(w.driver.Prepared(), artifact.Digest) {
		return nil
	}
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, w.cfg.PrepareTimeout)
	_, err := w.driver.Prepare(limited, artifact)
	late := limited.Err() != nil && ctx.Err() == nil
	cancel()
	if err != nil && late {
		return fault.Wrap(fault.CodeStartTimeout, err, "the artifact was not ready within %s", functions.Duration(w.cfg.PrepareTimeout))
	}
	if err != nil {
		return err
	}
	in.record.Phases.Prepare = functions.Duration(time.Since(begun))
	return nil
}

// create makes the sandbox.
func (w *Worker) create(in *instance) (sandbox.Sandbox, error) {
	ctx, rev := in.startCtx, in.revision
	record, err := json.Marshal(in.record)
	if err != nil {
		return nil, err
	}
	cfg := rev.Config.WithDefaults()
	sb, err := w.driver.Create(ctx, sandbox.Spec{
		ID: in.id(), Artifact: rev.Artifact, Command: cfg.Command, Env: env(rev, cfg, in.id()), Port: cfg.Port, Limits: cfg.Limits,
		Activate: cfg.Readiness.Activation, ReadOnlyRoot: cfg.ReadOnlyRoot, Egress: cfg.Internet(), GVisor: cfg.GVisor(), Record: record,
	})
	if err != nil {
		return nil, err
	}
	info := sb.Info()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.phases = in.record.Phases
	in.phases.Create, in.phases.Start = functions.Duration(info.Create), functions.Duration(info.Start)
	in.phases.Path, in.phases.PathReason, in.phases.User = info.StartPath, info.PathReason, info.RunsAs
	if cfg.Readiness.Activation && !info.Activated {
		in.phases.PathReason = strings.TrimPrefix(info.PathReason+"; the function listens by itself", "; ")
	}
	return sb, nil
}

// env is what the process gets besides the image's environment; the platform's names win.
func env(rev *functions.Revision, cfg functions.Config, id functions.InstanceID) []string {
	name, shown := rev.Function, rev.ID
	if of, pinned, ok := rev.Ref().PinnedTo(); ok {
		name, shown = of.Name, pinned
	}
	all := maps.Clone(cfg.Env)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, map[string]string{
		"PORT":             strconv.Itoa(cfg.Port),
		"K_SERVICE":        name,
		"K_REVISION":       string(shown),
		"K_CONFIGURATION":  name,
		"TATAMI_FUNCTION":  name,
		"TATAMI_NAMESPACE": rev.Namespace,
		"TATAMI_REVISION":  string(shown),
		"TATAMI_INSTANCE":  string(id),
	})
	out := make([]string, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, k+"="+all[k])
	}
	return out
}

func (w *Worker) attach(in *instance, sb sandbox.Sandbox) {
	info := sb.Info()
	in.mu.Lock()
	in.pid = info.PID
	in.capture = sync.OnceFunc(func() {
		r := &in.record
		src := logs.Source{Instance: in.id(), Ref: r.Ref(), Revision: r.Revision, Stdout: info.Stdout, Stderr: info.Stderr}
		// After the machine went down, what its instances had written is gone with them.
		if err := w.logs.Attach(src); err != nil && (exitOf(sb) == nil || !errors.Is(err, fs.ErrNotExist)) {
			w.log.Error("the instance's output cannot be captured", "fn", r.Ref().String(), "inst", in.id(), "err", err)
		}
	})
	in.mu.Unlock()
	in.box.Store(&sandboxBox{sb})
	time.AfterFunc(captureLate, in.capture)
}

// endStart is the end of an instance that never became ready.
func (w *Worker) endStart(in *instance, sb sandbox.Sandbox, cause error) {
	asked := in.ending()
	if asked != nil && asked.leave && sb != nil {
		w.leave(in)
		return
	}
	var exit *functions.Exit
	reason := ""
	grace := min(w.cfg.Grace, failureGrace)
	if sb != nil {
		if exit = exitOf(sb); exit != nil && asked == nil {
			reason = fmt.Sprintf("%s before it listened on port %d", describe(*exit, in.record.Limits), in.record.Port)
			if why := sb.Info().NotRoot; why != "" {
				reason += "; its image asks for root, and it ran as another user, as " + why
			}
		}
		w.stop(in, sb, grace)
	}
	switch {
	case asked != nil:
		lines := w.finish(in, asked.reason)
		w.gone(in, functions.InstanceStopped, asked.reason, nil, lines[:0], false)
		return
	case reason != "":
	case fault.From(cause) != nil:
		reason = explain(fault.From(cause))
		in.setUnavailable(fault.KindOf(cause) == fault.Unavailable)
	default:
		reason = cause.Error()
	}
	w.gone(in, functions.InstanceFailed, reason, exit, w.finish(in, reason), true)
}

// explain is a fault in one line, its next step included.
func explain(f *fault.Error) string {
	s := f.Error()
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// keep is the life of an instance from ready to its end.
func (w *Worker) keep(in *instance, sb sandbox.Sandbox) {
	w.rest(in, sb)
	select {
	case <-sb.Done():
		w.shut(in)
		exit := sb.Exit()
		reason := describe(exit, in.record.Limits)
		if in.askEnd(end{reason: reason}) {
			w.out.departed(in, functions.InstanceFailed, reason)
			w.stop(in, sb, 0)
			w.gone(in, functions.InstanceFailed, reason, &exit, w.finish(in, reason), false)
			return
		}
	case <-in.asked:
	}
	asked := in.ending()
	if asked.leave {
		w.leave(in)
		return
	}
	reason := w.awaitDrained(in, sb)
	w.stop(in, sb, w.cfg.Grace)
	w.finish(in, reason)
	w.gone(in, functions.InstanceStopped, reason, exitOf(sb), nil, false)
}

// awaitDrained returns when no slot is held, the process has ended or the deadline is over, with the reason of the end.
func (w *Worker) awaitDrained(in *instance, sb sandbox.Sandbox) string {
	for {
		asked := in.ending()
		timer := time.NewTimer(time.Until(asked.deadline))
		select {
		case <-in.slots.drained:
			timer.Stop()
			return asked.reason
		case <-sb.Done():
			timer.Stop()
			return asked.reason + "; " + describe(sb.Exit(), in.record.Limits)
		case <-in.sooner:
			timer.Stop()
		case <-timer.C:
			if held := in.slots.held(); held > 0 {
				return fmt.Sprintf("%s; ended by drain deadline with %d invocations running", asked.reason, held)
			}
			return asked.reason
		}
	}
}

// leave ends the worker's part in an instance that goes on.
func (w *Worker) leave(in *instance) {
	in.captured()
	w.logs.Leave(in.id())
	w.log.Info("instance left running", "fn", in.record.Ref().String(), "inst", in.id())
}

// stop ends the process and removes the sandbox. It does not give up while the worker runs: what cannot be removed still takes its room.
func (w *Worker) stop(in *instance, sb sandbox.Sandbox, grace time.Duration) {
	in.captured()
	for attempt := range 1 << 30 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(in.startCtx), grace+stopPatience)
		err := sb.Stop(ctx, grace)
		cancel()
		if err == nil {
			return
		}
		w.log.Error("a sandbox could not be removed; trying again", "fn", in.record.Ref().String(), "inst", in.id(), "err", err)
		in.setState(functions.InstanceDraining, "it could not be removed yet: "+err.Error())
		w.out.changed(in)
		w.mu.Lock()
		closing := w.closing
		w.mu.Unlock()
		if closing && attempt >= 2 {
			return
		}
		time.Sleep(min(100*time.Millisecond<<min(attempt, 6), 5*time.Second))
	}
}

// finish ends the instance's log with the reason and returns its last lines.
func (w *Worker) finish(in *instance, reason string) []string {
	lines := w.logs.Finish(in.id(), reason, failureLines)
	for i, l := range lines {
		if len(l) > failureLine {
			lines[i] = l[:failureLine] + "…"
		}
	}
	return lines
}

// gone tells the end of an instance, after everything of it is removed.
func (w *Worker) gone(in *instance, state functions.InstanceState, reason string, exit *functions.Exit, lines []string, failed bool) {
	in.setState(state, reason)
	last := in.report()
	last.Exit, last.PID = exit, 0
	if state == functions.InstanceFailed {
		last.Logs = lines
	}
	w.drop(in, last)
	var d *bus.Departure
	if failed {
		r := &in.record
		d = &bus.Departure{Instance: r.Instance, State: state, Reason: reason, Failed: &bus.StartFailure{
			Namespace: r.Namespace, Function: r.Function, Revision: r.Revision, Logs: lines,
		}}
	}
	w.out.goneWith(d, last)
	level := w.log.Info
	if state == functions.InstanceFailed {
		level = w.log.Warn
	}
	level("instance "+string(state), "fn", in.record.Ref().String(), "rev", in.record.Revision, "inst", in.id(), "reason", reason)
}

// exitOf is how the process ended; nil while it runs.
func exitOf(sb sandbox.Sandbox) *functions.Exit {
	select {
	case <-sb.Done():
		e := sb.Exit()
		return &e
	default:
		return nil
	}
}

// describe says for people how a process ended.
func describe(e functions.Exit, l functions.Limits) string {
	switch {
	case e.OOM:
		return fmt.Sprintf("killed by the kernel: out of memory (limit %d MiB)", l.Memory/functions.MiB)
	case e.Code == unseen:
		return fmt.Sprintf("exited with code %d (or its end was not seen)", e.Code)
	case e.Code > 128 && e.Code <= 128+64:
		return fmt.Sprintf("exited with code %d (%s)", e.Code, syscall.Signal(e.Code-128))
	default:
		return fmt.Sprintf("exited with code %d", e.Code)
	}
}

var errExited = errors.New("the process ended")
