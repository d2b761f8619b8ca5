package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// MaxDelay is how far away the first attempt of an invocation may be.
const MaxDelay = 30 * 24 * time.Hour

// delayed reports whether the invocation waits for a time.
func (r *Request) delayed() bool { return r.NotBefore.After(r.now) }

// messageOf is the invocation as the stream holds it: to be run at once, or, where it has a time that comes, as a message that the server
// delivers some time later, if this process has not delivered it at its time.
func (q *Queue) messageOf(inv *functions.Invocation) (*nats.Msg, error) {
	subject, ok := bus.InvocationSubject(inv.ID)
	if !ok {
		return nil, fmt.Errorf("%q is no id of an invocation", inv.ID)
	}
	data, err := encodeInvocation(inv)
	if err != nil {
		return nil, fmt.Errorf("encoding the invocation: %w", err)
	}
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	if inv.OrderingKey != "" {
		m.Header[bus.HeaderOrder] = []string{orderName(inv.OrderingKey)}
	}
	if inv.NotBefore.IsZero() {
		return m, nil
	}
	m.Subject, _ = bus.ScheduledSubject(inv.ID)
	m.Header[bus.HeaderScheduleTarget] = []string{subject}
	// Written by hand: the client's own option truncates the time to seconds, and the message comes early.
	m.Header[bus.HeaderSchedule] = []string{"@at " + inv.NotBefore.Add(q.cfg.Backstop).Format(time.RFC3339Nano)}
	m.Header[bus.HeaderDue] = []string{inv.NotBefore.Format(time.RFC3339Nano)}
	m.Header[bus.HeaderAttempt] = []string{strconv.Itoa(inv.Attempt)}
	return m, nil
}
