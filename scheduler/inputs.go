package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
	"golang.org/x/sync/errgroup"
)

// subscribe takes demand, reports and questions from the bus. The function returned ends that.
func (s *Scheduler) subscribe(ctx context.Context) (func(), error) {
	var subs []*nats.Subscription
	end := func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
	}
	own := bus.ListenSubject(s.bus.Boot())
	handlers := map[string]nats.MsgHandler{
		bus.SubjectDemand: func(m *nats.Msg) {
			handle(ctx, s, s.demand, m, func(now time.Time, d *bus.Demand) []reconcile.Effect { return s.core.Demand(now, *d) })
		},
		bus.SubjectReports: func(m *nats.Msg) {
			if len(m.Data) == 0 {
				// A scheduler's beat. That of another one, which leads no longer or did not yet, says nothing about this one.
				if m.Subject == own {
					s.offer(ctx, s.core.Beat)
				}
				return
			}
			handle(ctx, s, s.in, m, func(now time.Time, r *bus.Report) []reconcile.Effect {
				// A worker may say on its own subject what it likes, and speaks for its own node only.
				if !bus.OfNode(m.Subject, bus.SubjectReports, r.Node) {
					s.log.Error("a report names another node than its subject", "subject", m.Subject, "node", r.Node)
					return nil
				}
				return s.core.Report(now, *r)
			})
		},
		bus.SubjectOverview: func(m *nats.Msg) {
			s.answer(ctx, m, func(now time.Time) any {
				o := overview(now, s.core.State())
				o.Epoch = s.cfg.Epoch
				s.pool.Load().show(&o)
				return o
			})
		},
		bus.SubjectCompact: func(m *nats.Msg) {
			req, err := bus.Decode[bus.CompactRequest](m.Data)
			if err != nil {
				s.log.Warn("a question cannot be read", "err", err)
				return
			}
			s.answer(ctx, m, func(time.Time) any { return compact(s.core.State(), req.Nodes) })
		},
		bus.SubjectExplain: func(m *nats.Msg) {
			req, err := bus.Decode[bus.ExplainRequest](m.Data)
			if err != nil {
				s.log.Warn("a question cannot be read", "err", err)
				return
			}
			s.answer(ctx, m, func(now time.Time) any {
				e := explain(now, s.core.State(), req)
				if v := s.pool.Load(); v != nil && e.Found && req.Function != nil {
					say(&e, now, "%s", &v.PoolStatus)
				}
				return e
			})
		},
	}
	for subject, h := range handlers {
		sub, err := s.bus.Conn().Subscribe(subject, h)
		if err != nil {
			end()
			return nil, fmt.Errorf("subscribing to %s: %w", subject, err)
		}
		subs = append(subs, sub)
	}
	if err := s.bus.Conn().FlushTimeout(5 * time.Second); err != nil {
		end()
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	return end, nil
}

// Hear takes what a gateway of this process demands, as from the bus. It is false where it does not: then the bus has to carry it.
func (s *Scheduler) Hear(d *bus.Demand) bool {
	if !s.running.Load() {
		return false
	}
	in := func(now time.Time) []reconcile.Effect { return s.core.Demand(now, *d) }
	if s.now(in) {
		return true
	}
	s.queued.Add(1)
	select {
	case s.demand <- in:
		return true
	default:
		s.queued.Add(-1)
		return false
	}
}

func handle[T any](ctx context.Context, s *Scheduler, to chan<- input, m *nats.Msg, apply func(time.Time, *T) []reconcile.Effect) {
	v, err := bus.Read[T](m.Data)
	if err != nil {
		s.log.Warn("a message cannot be read", "subject", m.Subject, "err", err)
		return
	}
	s.hand(ctx, to, func(now time.Time) []reconcile.Effect { return apply(now, v) })
}

// answer builds the answer with the state in hand, and encodes and sends it without.
func (s *Scheduler) answer(ctx context.Context, m *nats.Msg, build func(now time.Time) any) {
	done := make(chan any, 1)
	s.offer(ctx, func(now time.Time) []reconcile.Effect { done <- build(now); return nil })
	select {
	case v := <-done:
		data, err := json.Marshal(v)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			s.log.Error("answering failed", "subject", m.Subject, "err", err)
		}
	case <-ctx.Done():
	}
}

// watch follows the records.
func (s *Scheduler) watch(ctx context.Context, g *errgroup.Group) {
	s.unsynced = 5
	synced := func() {
		s.offer(ctx, func(now time.Time) []reconcile.Effect {
			if s.unsynced--; s.unsynced > 0 {
				return nil
			}
			close(s.ready)
			return s.core.Synced(now)
		})
	}
	g.Go(func() error { return s.recall(ctx, synced) })
	g.Go(func() error {
		return s.bus.Quotas().Watch(ctx, "", func(e bus.Event[functions.Quota]) {
			switch {
			case e.Synced:
				synced()
			case e.Deleted:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.DeleteQuota(now, e.Key) })
			default:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.SetQuota(now, e.Value) })
			}
		})
	})
	g.Go(func() error {
		return s.bus.Nodes().Watch(ctx, "", func(e bus.Event[functions.NodeSettings]) {
			switch {
			case e.Synced:
				synced()
			case e.Deleted:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.DeleteNode(now, functions.NodeID(e.Key)) })
			default:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.SetNode(now, e.Value) })
			}
		})
	})
	g.Go(func() error {
		return s.bus.Revisions().Watch(ctx, "", func(e bus.Event[functions.Revision]) {
			switch {
			case e.Synced:
				synced()
			case e.Deleted:
				if ref, id, ok := splitKey(e.Key); ok {
					s.offer(ctx, func(now time.Time) []reconcile.Effect {
						return s.core.DeleteRevision(now, ref, functions.RevisionID(id))
					})
				}
			default:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.SetRevision(now, e.Value) })
			}
		})
	})
	g.Go(func() error {
		return s.bus.Functions().Watch(ctx, "", func(e bus.Event[functions.Function]) {
			switch {
			case e.Synced:
				synced()
			case e.Deleted:
				if ref, _, ok := splitKey(e.Key); ok {
					s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.DeleteFunction(now, ref) })
				}
			default:
				s.offer(ctx, func(now time.Time) []reconcile.Effect { return s.core.SetFunction(now, e.Value) })
			}
		})
	})
}

// splitKey reads {namespace}.{name} with an optional further word.
func splitKey(key string) (ref functions.Ref, rest string, ok bool) {
	ns, name, ok := strings.Cut(key, ".")
	name, rest, _ = strings.Cut(name, ".")
	return functions.Ref{Namespace: ns, Name: name}, rest, ok && name != ""
}
