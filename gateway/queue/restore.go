package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// dropsAtOnce is how many consumers are removed at the same time.
const dropsAtOnce = 32

// dropConsumers removes the consumers of an earlier process. They believe that their messages are being worked on: made anew they deliver them at once.
func (q *Queue) dropConsumers(ctx context.Context) error {
	var drops errgroup.Group
	drops.SetLimit(dropsAtOnce)
	names := q.bus.Invocations().ConsumerNames(ctx)
	for name := range names.Name() {
		if !strings.HasPrefix(name, "fn_") {
			continue
		}
		drops.Go(func() error {
			if err := q.bus.RemoveConsumer(ctx, name); err != nil {
				return q.bus.Fault(err, "removing the consumer "+name)
			}
			return nil
		})
	}
	if err := drops.Wait(); err != nil {
		return err
	}
	if err := names.Err(); err != nil {
		return q.bus.Fault(err, "listing the consumers of the queue")
	}
	return nil
}

// restore learns what is in the stream and starts a lane for each function with work.
func (q *Queue) restore(ctx context.Context) error {
	if err := q.dropConsumers(ctx); err != nil {
		return err
	}
	info, err := q.bus.Invocations().Info(ctx)
	if err != nil {
		return q.bus.Fault(err, "reading the state of the queue")
	}
	q.restored = info.State.LastSeq
	if info.State.Msgs == 0 {
		return nil
	}
	began := time.Now()
	if err := q.restoreScheduled(ctx); err != nil {
		return err
	}
	type found struct {
		waiting, open int
		scheduled     map[functions.InvocationID]struct{}
	}
	all := map[string]*found{}
	of := func(hash string) *found {
		f := all[hash]
		if f == nil {
			f = &found{scheduled: map[functions.InvocationID]struct{}{}}
			all[hash] = f
		}
		return f
	}
	var twice []string
	if err := q.subjects(ctx, bus.StreamInvocations, "sched.>", func(subject string, count uint64) {
		if count > 1 {
			twice = append(twice, subject)
		}
		_, hash, id := split(subject)
		f := of(hash)
		f.scheduled[id] = struct{}{}
		f.open++
	}); err != nil {
		return err
	}
	if err := q.dropOutdated(ctx, twice); err != nil {
		return err
	}
	if err := q.subjects(ctx, bus.StreamInvocations, "inv.>", func(subject string, count uint64) {
		_, hash, id := split(subject)
		f := of(hash)
		f.waiting += int(count)
		// One that was about to be acknowledged when its retry was stored is the same invocation.
		if _, twice := f.scheduled[id]; !twice {
			f.open++
		}
	}); err != nil {
		return err
	}
	for hash, f := range all {
		ref, err := q.refOf(ctx, hash)
		if err != nil {
			return err
		}
		if ref == (functions.Ref{}) {
			continue
		}
		q.tallyOf(ref).restore(f.open, f.scheduled)
		q.arrive(ref, hash, f.waiting)
	}
	q.log.Info("the queue is taken up", "functions", len(all), "messages", info.State.Msgs, "dur_ms", time.Since(began).Milliseconds())
	return nil
}

// dropOutdated removes all but the last schedule of each subject. The server stores an invocation's next schedule first, and removes the one before then:
// a process that was killed in between left both. Of the first nobody would ever take care: what is due is read by its subject, which gives the last.
func (q *Queue) dropOutdated(ctx context.Context, subjects []string) error {
	for _, s := range subjects {
		if err := q.bus.Invocations().Purge(ctx, jetstream.WithPurgeSubject(s), jetstream.WithPurgeKeep(1)); err != nil {
			return q.bus.Fault(err, "removing an outdated schedule")
		}
	}
	return nil
}

// restoreScheduled learns when what is scheduled is due, and gives invocations that wait for a further attempt the turn of their ordering key: what
// came behind them must not overtake. What is of an earlier version does not say when it is due: the server delivers it.
func (q *Queue) restoreScheduled(ctx context.Context) error {
	turns := map[string]map[string]functions.InvocationID{}
	err := q.bus.EachStored(ctx, bus.StreamInvocations, "sched.>", func(_ uint64, subject string, h nats.Header) {
		_, hash, id := split(subject)
		if at, ok := dueOf(h); ok {
			q.alarms.set(id, at)
		}
		order := h.Get(bus.HeaderOrder)
		if order == "" || h.Get(bus.HeaderAttempt) == "1" {
			return
		}
		if turns[hash] == nil {
			turns[hash] = map[string]functions.InvocationID{}
		}
		turns[hash][order] = id
	})
	q.mu.Lock()
	q.turns = turns
	q.mu.Unlock()
	return err
}

// refOf finds the name of the function whose invocations lie under a hash: each of them says it. Empty where none can be read.
func (q *Queue) refOf(ctx context.Context, hash string) (functions.Ref, error) {
	for _, class := range []string{"inv.", "sched."} {
		for seq := uint64(1); ; {
			m, err := q.bus.Invocations().GetMsg(ctx, seq, jetstream.WithGetMsgSubject(class+hash+".*"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return functions.Ref{}, q.bus.Fault(err, "reading the queue")
			}
			inv, err := decodeInvocation(m.Data)
			if err == nil && inv.Ref().Hash() == hash {
				// Without what the names are parts of: the whole message.
				return functions.Ref{Namespace: strings.Clone(inv.Namespace), Name: strings.Clone(inv.Function)}, nil
			}
			q.log.Error("a queued invocation cannot be read, it stays in the queue",
				"seq", m.Sequence, "err", fmt.Sprint(err))
			seq = m.Sequence + 1
		}
	}
	return functions.Ref{}, nil
}
