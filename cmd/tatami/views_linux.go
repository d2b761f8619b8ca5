package main

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/worker"
)

// sources is where the live picture comes from.
func (s *system) sources() live.Sources {
	return live.Sources{
		Overview: live.OverviewFrom(s.bus.Conn()),
		Traffic: func() []live.Traffic {
			var out []live.Traffic
			for _, f := range s.invoker.Stats() {
				out = append(out, live.Traffic(f))
			}
			return out
		},
		Queues: func() map[functions.Ref]live.Queue {
			out := map[functions.Ref]live.Queue{}
			for ref, d := range s.queue.Depths() {
				out[ref] = live.Queue(d)
			}
			return out
		},
		Notices: s.notices,
	}
}

func (s *system) traffic() []api.FunctionTraffic {
	var out []api.FunctionTraffic
	for _, f := range s.invoker.Stats() {
		out = append(out, api.FunctionTraffic{
			Ref: functions.Ref{Namespace: f.Namespace, Name: f.Function},
			Traffic: v1.Traffic{
				Requests: f.Requests, Errors: f.Errors, ColdStarts: f.ColdStarts, InFlight: f.InFlight, Waiting: f.Waiting,
				RPS: f.RPS, P50: f.P50, P99: f.P99,
			},
		})
	}
	return out
}

// logView shows the worker's logs to the control API.
type logView struct{ w *worker.Worker }

func (v logView) Logs(ctx context.Context, q api.LogQuery, fn func(v1.LogLine) error) error {
	return v.w.Logs(ctx, worker.LogQuery{Ref: q.Ref, Instance: q.Instance, Since: q.Since, Tail: q.Tail, Follow: q.Follow}, func(l worker.LogLine) error {
		return fn(v1.LogLine{Time: l.Time, Instance: l.Instance, Revision: l.Revision, Stream: string(l.Stream), Text: l.Text})
	})
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

// statusOf shows where an invocation stands.
func statusOf(s queue.Status) v1.InvocationStatus {
	out := v1.InvocationStatus{
		ID: s.ID, Namespace: s.Ref.Namespace, Function: s.Ref.Name, State: s.State, Attempts: s.Attempts, Accepted: s.Accepted, Deadline: s.Deadline,
	}
	if r := s.Result; r != nil {
		out.Reason, out.Status, out.Finished, out.BodySize = r.Reason, r.Status, r.Finished, int64(len(r.Body))
		if r.BodyRef != nil {
			out.BodySize = r.BodyRef.Size
		}
	}
	return out
}
