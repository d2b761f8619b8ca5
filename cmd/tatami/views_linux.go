package main

import (
	"context"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/gateway/remote"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// sources is where the live picture comes from.
func (s *system) sources() live.Sources {
	return live.Sources{
		Overview: live.OverviewFrom(s.bus.Conn()),
		Traffic:  s.liveTraffic,
		Queues: func() map[functions.Ref]live.Queue {
			out := map[functions.Ref]live.Queue{}
			for ref, d := range s.queue.Depths() {
				// The picture has functions only: of what goes to their destinations it shows what failed.
				of, _, delivery := ref.Delivers()
				sum := out[of]
				if !delivery {
					sum = live.Queue{Pending: d.Pending, Scheduled: d.Scheduled, Running: d.Running, Oldest: d.Oldest, Dead: sum.Dead}
				}
				sum.Dead += d.Dead
				out[of] = sum
			}
			return out
		},
		Servers: s.servers,
		Notices: s.notices,
	}
}

// servers are those of the cluster, as this one sees them; none where it stands alone.
func (s *system) servers() []live.Server {
	var out []live.Server
	leader := ""
	if s.leader != nil {
		leader = s.leader()
	}
	for _, v := range s.bus.Servers() {
		l := live.Server{Name: v.Name, Peer: v.Peer, Up: v.Up, Leads: v.Up && v.Server == leader, Misses: v.Misses}
		if !v.Up && !v.Heard.IsZero() {
			l.Heard = &v.Heard
		}
		out = append(out, l)
	}
	return out
}

// logView shows the workers' logs to the control API.
type logView struct{ w *remote.Workers }

func (v logView) Logs(ctx context.Context, q api.LogQuery, fn func(v1.LogLine) error) error {
	return v.w.Logs(ctx, bus.LogQuery{Ref: q.Ref, Instance: q.Instance, Since: q.Since, Tail: q.Tail, Follow: q.Follow}, func(l bus.LogLine) error {
		return fn(v1.LogLine(l))
	})
}

// locate returns the node of an instance.
func (s *system) locate(ctx context.Context, inst functions.InstanceID) (functions.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	over, err := live.OverviewFrom(s.bus.Conn())(ctx)
	if err != nil {
		return "", fault.Wrap(fault.CodeUnavailable, err, "finding the node of %s", inst)
	}
	for _, i := range over.Instances {
		if i.Instance == inst && !i.State.Gone() {
			return i.Node, nil
		}
	}
	return "", fault.New(fault.CodeNotFound, "instance %s is not running", inst).WithHint("see tatami inst ls")
}

// expel has the gateway let go of nodes that are removed, until ctx ends.
func (s *system) expel(ctx context.Context) error {
	return s.bus.Nodes().Watch(ctx, "", func(e bus.Event[functions.NodeSettings]) {
		if e.Value.Intent == functions.NodeRemoved {
			s.workers.Remove(e.Value.Node)
			s.invoker.Lose(e.Value.Node)
		}
	})
}

// askTimeout bounds a question to the scheduler.
const askTimeout = 3 * time.Second

// silentAfter is when a node has missed more than one of its reports.
const silentAfter = 5 * time.Second

// checks are the server's own findings for doctor: the nodes.
func (s *system) checks(ctx context.Context) []v1.Check {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	over, err := live.OverviewFrom(s.bus.Conn())(ctx)
	if err != nil {
		return []v1.Check{{Name: "nodes", State: v1.CheckFail, Detail: err.Error(), Fix: "look into the server's log"}}
	}
	var out []v1.Check
	for _, n := range over.Nodes {
		if n.Departed {
			continue // its worker was stopped, and said so
		}
		seen := over.At.Sub(n.LastSeen)
		c := okCheck("node", "%s, %s: cpu %s, memory %s for functions", n.Name, n.ID, cores(n.Allocatable.CPU), size(n.Allocatable.Memory))
		if seen > silentAfter {
			c.State, c.Detail = v1.CheckFail, n.Name+", "+string(n.ID)+": not heard of for "+seen.Round(time.Second).String()
			c.Fix = "on that machine, look at its worker: systemctl status tatami-worker"
		}
		out = append(out, c)
	}
	for _, v := range s.bus.Servers() {
		c := okCheck("server", "%s, %s: up, %s", v.Name, v.Peer, v.Version)
		switch {
		case !v.Up && v.Heard.IsZero():
			c.State, c.Detail = v1.CheckFail, v.Name+": not heard since this server runs"
		case !v.Up:
			c.State, c.Detail = v1.CheckFail, v.Name+", "+v.Peer+": not heard for "+time.Since(v.Heard).Round(time.Second).String()
		case len(v.Misses) > 0:
			c.State, c.Detail, c.Fix = v1.CheckFail, v.Name+": does not hear "+strings.Join(v.Misses, ", "), "see to the way between their --cluster-listen addresses"
		}
		if !v.Up {
			c.Fix = "on that machine, look at it: systemctl status tatami-server"
		}
		out = append(out, c)
	}
	out = append(out, okCheck("processors", "%s", s.cfg.keptAwake))
	if url := s.bus.JoinURL(); url != "" {
		out = append(out, okCheck("workers", "may join at %s", url))
	}
	return out
}

// queueView shows the queue to the control API.
type queueView struct{ q *queue.Queue }

func (v queueView) Depths() map[functions.Ref]v1.QueueDepth {
	out := map[functions.Ref]v1.QueueDepth{}
	for ref, d := range v.q.Depths() {
		out[ref] = v1.QueueDepth(d)
	}
	return out
}

func (v queueView) List(ctx context.Context, ref functions.Ref, state functions.InvocationState, limit int) ([]v1.InvocationStatus, error) {
	list, err := v.q.List(ctx, ref, state, limit)
	out := make([]v1.InvocationStatus, 0, len(list))
	for _, s := range list {
		out = append(out, statusOf(s))
	}
	return out, err
}

func (v queueView) Dead(ctx context.Context, ref functions.Ref, limit int) ([]functions.DeadLetter, error) {
	return v.q.Dead(ctx, ref, limit)
}

func (v queueView) ShowDead(ctx context.Context, id functions.InvocationID) (functions.DeadLetter, error) {
	return v.q.ShowDead(ctx, id)
}

func (v queueView) Lookup(ctx context.Context, id functions.InvocationID) (v1.InvocationStatus, error) {
	s, err := v.q.Lookup(ctx, id, 0)
	return statusOf(s), err
}

func (v queueView) Cancel(ctx context.Context, id functions.InvocationID) (v1.InvocationStatus, error) {
	s, err := v.q.Cancel(ctx, id)
	return statusOf(s), err
}

func (v queueView) Redrive(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (functions.InvocationID, error) {
	return v.q.Redrive(ctx, id, rev)
}

func (v queueView) Replay(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (v1.Replayed, error) {
	r, err := v.q.Replay(ctx, id, rev)
	return v1.Replayed{
		Invocation: r.ID, Namespace: r.Ref.Namespace, Function: r.Ref.Name, Revision: r.Revision, Before: outputOf(r.Before), Now: outputOf(r.Now),
		Differences: r.Differences(),
	}, err
}

func outputOf(o queue.Output) v1.Output {
	return v1.Output{State: o.State, Revision: o.Revision, Status: o.Status, Reason: o.Reason, Headers: o.Header, Body: o.Body, Cut: o.Cut, Took: functions.Duration(o.Took)}
}

func (v queueView) Ended(ctx context.Context, ref functions.Ref, from, to time.Time, limit int) ([]v1.InvocationStatus, error) {
	list, err := v.q.Ended(ctx, ref, from, to, limit)
	out := make([]v1.InvocationStatus, 0, len(list))
	for _, s := range list {
		out = append(out, statusOf(s))
	}
	return out, err
}

func (v queueView) PurgeDead(ctx context.Context, ref functions.Ref, limit int) (int, error) {
	return v.q.PurgeDead(ctx, ref, limit)
}

// statusOf shows where an invocation stands.
func statusOf(s queue.Status) v1.InvocationStatus {
	out := v1.InvocationStatus{
		ID: s.ID, Namespace: s.Ref.Namespace, Function: s.Ref.Name, State: s.State, Attempts: s.Attempts, Accepted: s.Accepted, Deadline: s.Deadline,
		Next: s.Next,
	}
	if r := s.Result; r != nil {
		out.Reason, out.Status, out.Finished, out.BodySize = r.Reason, r.Status, r.Finished, int64(len(r.Body))
		if r.BodyRef != nil {
			out.BodySize = r.BodyRef.Size
		}
	}
	return out
}
