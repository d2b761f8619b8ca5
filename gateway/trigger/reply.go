package trigger

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// hops is the extension that counts how many replies led to an event, so that functions that answer each other come to an end.
	hops    = "tatamihops"
	maxHops = 16
	// maxReply is the largest body of a reply event, in bytes.
	maxReply = 8 * functions.MiB
)

// OpenBody opens the body of a result.
type OpenBody func(ctx context.Context, rec *functions.Result) (io.ReadCloser, int64, error)

// Reply publishes the event that a function answered an event with, where its trigger wants that. The queue calls it before an invocation
// that succeeded is over: an error, after which it calls again, keeps the invocation from ending. What is no event, or not to be published, is
// logged and let go.
func (h *Hub) Reply(ctx context.Context, inv *functions.Invocation, rec *functions.Result, open OpenBody) error {
	if !asked(inv) || rec.Status != http.StatusOK || cloudevents.ModeOf(rec.Header) == cloudevents.None {
		return nil
	}
	ev, err := h.readReply(ctx, inv, rec, open)
	if err != nil {
		if !isFinal(err) {
			return err
		}
		h.log.Warn("the event that a function answered with is let go", "inv", string(inv.ID), "fn", inv.Ref().String(), "err", err)
		return nil
	}
	_, err = h.Publish(ctx, inv.Namespace, []functions.Event{*ev})
	return err
}

// asked reports whether the invocation is of an event that may be answered with one.
func asked(inv *functions.Invocation) bool {
	switch inv.Trigger {
	case "http", "queue", "nats-call":
		return false
	}
	for _, v := range inv.Header["Prefer"] {
		if v == preferReply {
			return true
		}
	}
	return false
}

func (h *Hub) readReply(ctx context.Context, inv *functions.Invocation, rec *functions.Result, open OpenBody) (*functions.Event, error) {
	body, size, err := open(ctx, rec)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size > maxReply {
		return nil, fault.New(fault.CodeBodyTooLarge, "it has %d bytes, at most %d may be", size, maxReply)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "reading the reply")
	}
	if cloudevents.ModeOf(rec.Header) == cloudevents.Batched {
		return nil, fault.New(fault.CodeInvalidRequest, "it is a batch, which nobody asked for").WithField("Content-Type")
	}
	evs, err := cloudevents.Read(rec.Header, data)
	if err != nil {
		return nil, err
	}
	n := 0
	if prior := inv.Header["Ce-"+hopsKey]; len(prior) == 1 {
		// What is no number was not written here, and counts from zero.
		n, _ = strconv.Atoi(prior[0])
	}
	if n++; n > maxHops {
		return nil, fault.New(fault.CodeInvalidRequest, "%d replies led to it, at most %d may", n, maxHops).WithField(hops)
	}
	return &evs[0], evs[0].Set(hops, strconv.Itoa(n))
}

// hopsKey is hops as net/http writes it.
const hopsKey = "Tatamihops"
