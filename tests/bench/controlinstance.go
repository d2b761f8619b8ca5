package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// jsonList is the inside of a list in JSON.
type jsonList []byte

func (l *jsonList) add(item func([]byte) []byte) {
	if len(*l) > 0 {
		*l = append(*l, ',')
	}
	*l = item(*l)
}

// fakeRevision is what a worker that only waits knows of a revision.
type fakeRevision struct {
	id                          functions.RevisionID
	namespace, function, digest string
	slots                       int
	reserved                    functions.Resources
}

func newFakeRevision(r *functions.Revision) fakeRevision {
	return fakeRevision{
		id: r.ID, namespace: r.Namespace, function: r.Function, digest: r.Artifact.Digest, slots: r.Config.Concurrency, reserved: r.Config.Limits.Resources(),
	}
}

// fakeInstance is an instance of a worker that only waits. It says what a real one says.
type fakeInstance struct {
	id   functions.InstanceID
	mark *mark
	// fixed are the fields that an endpoint and a report have in common, rest those that only a report has, phases the phases.
	fixed, rest, phases string
	state               functions.InstanceState
	reason              string
	since, ready        time.Time
	lastUsed            time.Time
	slots, held         int
}

func newFakeInstance(c fakeCommand, rev *fakeRevision, m *mark, now time.Time) *fakeInstance {
	in := &fakeInstance{id: c.Instance, mark: m, slots: rev.slots, state: functions.InstanceStarting, since: now}
	in.fixed = fmt.Sprintf(`{"instance":"%s","namespace":"%s","function":"%s","revision":"%s","slots":%d,"started":"%s"`,
		c.Instance, rev.namespace, rev.function, rev.id, in.slots, now.Format(time.RFC3339Nano))
	r := rev.reserved
	in.rest = fmt.Sprintf(`,"reserved":{"cpuMillis":%d,"memoryBytes":%d,"instances":%d},"usage":{"cpu":"0s","memoryBytes":0,"pids":0},"pid":4711`, r.CPU, r.Memory, r.Instances)
	in.phases = fmt.Sprintf(`{"place":"%s","prepare":"0s","create":"28ms","start":"2ms","ready":"10ms"}`, functions.Duration(now.Sub(c.Asked)))
	return in
}

func (in *fakeInstance) becomeReady(now time.Time) {
	in.state, in.since, in.ready = functions.InstanceReady, now, now
}

// report writes what a report says of the instance.
func (in *fakeInstance) report(b []byte) []byte {
	b = append(append(b, in.fixed...), in.rest...)
	b = append(append(append(b, `,"state":"`...), in.state...), '"')
	if in.reason != "" {
		b = strconv.AppendQuote(append(b, `,"reason":`...), in.reason)
	}
	b = appendTime(b, "since", in.since)
	if !in.lastUsed.IsZero() {
		b = appendTime(b, "lastUsed", in.lastUsed)
	}
	b = strconv.AppendInt(append(b, `,"held":`...), int64(in.held), 10)
	return append(append(append(b, `,"phases":`...), in.phases...), '}')
}

// endpoint writes what the gateways are told of the instance.
func (in *fakeInstance) endpoint(b []byte, node functions.NodeID) []byte {
	b = append(b, in.fixed...)
	b = append(append(append(b, `,"node":"`...), node...), '"')
	b = appendTime(b, "ready", in.ready)
	return append(append(append(b, `,"phases":`...), in.phases...), '}')
}

// departure writes what the gateways are told when the instance takes no more.
func (in *fakeInstance) departure(b []byte) []byte {
	return fmt.Appendf(b, `{"instance":"%s","state":"%s","reason":%q}`, in.id, in.state, in.reason)
}

func appendTime(b []byte, field string, t time.Time) []byte {
	b = append(append(append(b, `,"`...), field...), `":"`...)
	return append(t.AppendFormat(b, time.RFC3339Nano), '"')
}
