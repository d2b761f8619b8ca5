package queue

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// ending is the way of an invocation from its terminal record to the acknowledgement of its message.
//
// Nearly all invocations have a plain one: the record is stored, the disk is waited for, the message is acknowledged. No goroutine waits for these:
// the server's word and the disk's call the next step. What is more than that, or fails, is done by a goroutine of its own.
type ending struct {
	q    *Queue
	h    *held
	inv  *functions.Invocation
	rec  functions.Result
	data []byte
}

// plain reports whether nothing but the record is to be written, and nothing to be removed.
func (e *ending) plain() bool {
	if e.rec.State != functions.StateSucceeded || e.rec.BodyRef != nil || e.inv.BodyRef != nil || e.inv.Callback != "" {
		return false
	}
	if _, _, delivery := e.inv.Ref().Delivers(); delivery {
		return true
	}
	rev := e.q.liveOf(e.inv.Ref())
	if rev == nil {
		return true
	}
	to, _ := rev.Config.Queue.Destination(e.rec.State)
	return to.IsZero()
}

// begin stores the record. What follows counts as work of the queue.
func (e *ending) begin() {
	e.q.work.Add(1)
	e.q.bus.Results().CreateEncodedThen(bus.ResultKey(e.inv.ID), e.data, e.stored)
}

// stored follows the server's word on the record.
func (e *ending) stored(err error) {
	if err == nil {
		e.q.bus.BarrierThen(e.synced, e.q.bus.Results().Stream())
		return
	}
	// An earlier record, or none is known of: find out.
	e.q.goAttempt(func() {
		e.write()
		e.end()
	})
}

// synced follows the barrier.
func (e *ending) synced(err error) {
	if err == nil {
		e.q.settled(e.h, e.inv, &e.rec)
	} else {
		e.q.notSynced(e.h, err)
	}
	e.end()
}

func (e *ending) end() {
	e.q.concluded(e.h)
	e.q.work.Done()
}

// write stores the record, tries again where it must, and settles the invocation.
func (e *ending) write() {
	q, inv := e.q, e.inv
	written := e.rec.BodyRef
	var late bool
	ok := q.insist(e.h, "storing the result", func(ctx context.Context) error {
		_, err := q.bus.Results().CreateEncoded(ctx, bus.ResultKey(inv.ID), e.data)
		if late = fault.Is(err, fault.CodeConflict); late {
			var cur functions.Result
			if cur, _, err = q.bus.Results().Get(ctx, bus.ResultKey(inv.ID)); err == nil {
				// Ours, if an earlier try got through without its answer.
				late = !cur.Finished.Equal(e.rec.Finished)
				e.rec = cur
			}
		}
		return err
	})
	if !ok {
		return
	}
	if late {
		q.log.Warn("a late result is dropped: the invocation had ended", "inv", string(inv.ID), "fn", inv.Ref().String(), "state", string(e.rec.State))
		if written != nil {
			q.removeBody(written)
		}
	}
	q.settle(e.h, inv, &e.rec, !late)
}
