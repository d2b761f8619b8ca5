package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Headers of what goes to a destination, beside those of every attempt.
const (
	// headerOf names the invocation that ended, headerOfFunction its function, headerEnd how it ended.
	headerOf         = "Tatami-Of"
	headerOfFunction = "Tatami-Of-Function"
	headerEnd        = "Tatami-End"
	// HeaderDepth is how many destinations in a row led to the request. Whoever hands work over again is asked to hand it on.
	HeaderDepth = "Tatami-Depth"
)

// triggerDestination is the trigger of what goes to a destination.
const triggerDestination = "destination"

// maxCarried is the largest answer that a record carries with it; a larger one is to be fetched.
const maxCarried = 256 << 10

// deliveriesOf makes the invocations that take the record of an ended one to its function's destination and to where its caller wants it; none where it
// goes nowhere. To a function it is an ordinary one of that function's; what goes elsewhere lies in a queue of its own beside the function's, so that
// a destination that is slow or gone holds nothing else up.
func (q *Queue) deliveriesOf(inv *functions.Invocation, rec *functions.Result) (out []*functions.Invocation, err error) {
	if _, _, delivery := inv.Ref().Delivers(); delivery || inv.Hops > functions.MaxHops {
		return nil, nil
	}
	// Destinations are those of the function as it is now: one that is gone has none.
	rev := q.liveOf(inv.Ref())
	if rev == nil {
		return nil, nil
	}
	dest, end := rev.Config.Queue.Destination(rec.State)
	called := inv.Callback != "" && end != ""
	if dest.IsZero() && !called {
		return nil, nil
	}
	body, err := carried(rec)
	if err != nil {
		return nil, err
	}
	if !dest.IsZero() {
		out = append(out, q.deliveryTo(inv, dest, end, body))
	}
	if called {
		// Whether the URL is allowed is asked once more when it goes there.
		d := q.deliveryTo(inv, functions.Destination{URL: inv.Callback}, functions.EndCallback, body)
		d.Callback = inv.Callback
		d.Header[headerEnd], d.Header[functions.HeaderCallback] = []string{end}, []string{inv.Callback}
		out = append(out, d)
	}
	return out, nil
}

// deliveryTo makes the invocation that takes a record to a destination.
func (q *Queue) deliveryTo(inv *functions.Invocation, dest functions.Destination, end string, body []byte) *functions.Invocation {
	to, maxAge := inv.Ref().Deliveries(end), deliveryAge
	if dest.Function != "" {
		to, maxAge = functions.Ref{Namespace: inv.Namespace, Name: dest.Function}, functions.Config{}.WithDefaults().Queue.MaxAge.Std()
		if rev := q.liveOf(to); rev != nil {
			maxAge = rev.Config.Queue.MaxAge.Std()
		}
	}
	now := time.Now().UTC()
	return &functions.Invocation{
		Schema: functions.Schema, ID: functions.DeliveryID(to, inv.ID), Namespace: to.Namespace, Function: to.Name, Trigger: triggerDestination,
		Method: http.MethodPost, Path: "/", Body: body, Accepted: now, Deadline: now.Add(maxAge), Attempt: 1, Of: inv.ID, Hops: inv.Hops + 1,
		Header: map[string][]string{
			"Content-Type": {"application/json"}, headerOf: {string(inv.ID)}, headerOfFunction: {inv.Ref().String()}, headerEnd: {end},
			HeaderDepth: {strconv.Itoa(inv.Hops + 1)},
		},
	}
}

// liveOf is the revision that a function has now; nil where it has none.
func (q *Queue) liveOf(ref functions.Ref) *functions.Revision {
	rev, err := q.run.Lookup(q.alive, ref)
	if err != nil {
		return nil
	}
	return rev
}

// carried is the record as a destination gets it.
func carried(rec *functions.Result) ([]byte, error) {
	st := ended(*rec)
	v := Describe(&st)
	if v.BodySize > maxCarried {
		v.Encoding, v.Body = "", ""
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding the record of an invocation: %w", err)
	}
	return data, nil
}

// handRecordOn stores what goes to the destinations of an invocation that ended, before the invocation is acknowledged, and returns what it has
// stored. First says that this process has just written the terminal record, and so nobody can have stored it before. False: it cannot be
// stored, and the invocation's message stays.
func (q *Queue) handRecordOn(h *held, inv *functions.Invocation, rec *functions.Result, first bool) (stored []*functions.Invocation, ok bool) {
	all, err := q.deliveriesOf(inv, rec)
	if err != nil {
		q.log.Error("the record of an invocation cannot be handed on", "inv", string(inv.ID), "err", err)
		return nil, true
	}
	for _, out := range all {
		anew, ok := q.handOver(h, out, first)
		if !ok {
			return nil, false
		}
		if anew {
			stored = append(stored, out)
		}
	}
	return stored, true
}

// handOver stores one delivery, unless it is known. False: it cannot be stored.
func (q *Queue) handOver(h *held, out *functions.Invocation, first bool) (anew, ok bool) {
	m, err := q.messageOf(out)
	if err != nil {
		q.log.Error("the record of an invocation cannot be handed on", "inv", string(h.id), "err", err)
		return false, true
	}
	// The header says that it is not to be taken for new: after a crash it may be stored a second time, when it has ended already.
	m.Header[bus.HeaderAttempt] = []string{"1"}
	known := false
	ok = q.insist(h, "handing the record on", func(ctx context.Context) error {
		var err error
		if !first {
			if known, err = q.isKnown(ctx, out.ID); known || err != nil {
				return err
			}
		}
		return q.publish(ctx, m, string(out.ID))
	})
	if !ok || known {
		return false, ok
	}
	if err := q.tallyOf(out.Ref()).take(math.MaxInt); err != nil {
		q.log.Warn("a delivery is not counted", "inv", string(out.ID), "err", err)
	}
	return true, true
}

// isKnown reports whether an invocation is in the stream or has ended.
func (q *Queue) isKnown(ctx context.Context, id functions.InvocationID) (bool, error) {
	_, _, err := q.find(ctx, id)
	if fault.Is(err, fault.CodeInvocationNotFound) {
		return false, nil
	}
	return err == nil, err
}

// redeliver hands a dead delivery over again, as a new one, to the destination that the function has now.
func (q *Queue) redeliver(ctx context.Context, old *functions.Invocation) (functions.InvocationID, error) {
	if _, err := q.run.Lookup(ctx, old.Ref()); err != nil {
		return "", err
	}
	again := *old
	again.ID, again.RedriveOf = functions.NewInvocationID(old.Ref()), old.ID
	again.Attempt, again.History, again.NotBefore = 1, nil, time.Time{}
	again.Accepted = time.Now().UTC()
	again.Deadline = again.Accepted.Add(deliveryAge)
	t := q.tallyOf(again.Ref())
	if err := t.take(math.MaxInt); err != nil {
		return "", err
	}
	if err := q.put(ctx, &again, bus.StreamInvocations); err != nil {
		t.ended(again.ID)
		return "", err
	}
	q.arrived(&again)
	return again.ID, nil
}

// deadAt returns the patterns of the dead letters of a function, those of its deliveries included, or of one queue of deliveries.
func deadAt(ref functions.Ref) []string {
	if _, _, delivery := ref.Delivers(); delivery {
		return []string{bus.FunctionDead(ref)}
	}
	return []string{
		bus.FunctionDead(ref), bus.FunctionDead(ref.Deliveries(functions.EndSuccess)), bus.FunctionDead(ref.Deliveries(functions.EndFailure)),
		bus.FunctionDead(ref.Deliveries(functions.EndCallback)),
	}
}

// errTooDeep is the end of an invocation that too many destinations in a row led to.
var errTooDeep = fault.New(fault.CodeInvalidRequest, "more than %d destinations in a row led to it: do they lead in a circle?", functions.MaxHops)
