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

// fakeInstance is an instance of a worker that only waits. It says what a real one says, field by field in the same order.
type fakeInstance struct {
	id   functions.InstanceID
	mark *mark
	// What follows are fields of its messages: the names of its function, its slots, its beginning, its resources, and the parts of its start.
	function, slotted, started, reserved, phases string
	state                                        functions.InstanceState
	reason                                       string
	since, ready                                 time.Time
	lastUsed                                     time.Time
	slots, held                                  int
}

func newFakeInstance(c fakeCommand, rev *fakeRevision, m *mark, now time.Time) *fakeInstance {
	in := &fakeInstance{id: c.Instance, mark: m, slots: rev.slots, state: functions.InstanceStarting, since: now}
	in.function = fmt.Sprintf(`,"namespace":"%s","function":"%s","revision":"%s"`, rev.namespace, rev.function, rev.id)
	in.slotted = fmt.Sprintf(`,"slots":%d`, in.slots)
	in.started = fmt.Sprintf(`,"started":"%s"`, now.Format(time.RFC3339Nano))
	r := rev.reserved
	in.reserved = fmt.Sprintf(`,"reserved":{"cpuMillis":%d,"memoryBytes":%d,"instances":%d},"usage":{"cpu":"0s","memoryBytes":0,"pids":0}`, r.CPU, r.Memory, r.Instances)
	in.phases = fmt.Sprintf(`,"phases":{"place":"%s","prepare":"0s","create":"28ms","start":"2ms","ready":"10ms"}`, functions.Duration(now.Sub(c.Asked)))
	return in
}

func (in *fakeInstance) becomeReady(now time.Time) {
	in.state, in.since, in.ready = functions.InstanceReady, now, now
}

// report writes what a report says of the instance.
func (in *fakeInstance) report(b []byte) []byte {
	b = append(append(b, `{"instance":"`...), in.id...)
	b = append(append(append(b, '"'), in.function...), `,"state":"`...)
	b = append(append(b, in.state...), '"')
	if in.reason != "" {
		b = strconv.AppendQuote(append(b, `,"reason":`...), in.reason)
	}
	b = append(append(appendTime(b, "since", in.since), in.started...), in.slotted...)
	b = strconv.AppendInt(append(b, `,"held":`...), int64(in.held), 10)
	if !in.lastUsed.IsZero() {
		b = appendTime(b, "lastUsed", in.lastUsed)
	}
	return append(append(append(b, in.reserved...), in.phases...), `,"pid":4711}`...)
}

// endpoint writes what the gateways are told of the instance.
func (in *fakeInstance) endpoint(b []byte, node functions.NodeID) []byte {
	b = append(append(b, `{"instance":"`...), in.id...)
	b = append(append(append(b, `","node":"`...), node...), '"')
	b = append(append(append(b, in.function...), in.slotted...), in.started...)
	return append(append(appendTime(b, "ready", in.ready), in.phases...), '}')
}

// departure writes what the gateways are told when the instance takes no more.
func (in *fakeInstance) departure(b []byte) []byte {
	return fmt.Appendf(b, `{"instance":"%s","state":"%s","reason":%q}`, in.id, in.state, in.reason)
}

// appendList writes a field with a list, unless nothing is in it.
func appendList(b []byte, field string, list jsonList) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), field...), `":[`...)
	return append(append(b, list...), ']')
}

func appendTime(b []byte, field string, t time.Time) []byte {
	b = append(append(append(b, `,"`...), field...), `":"`...)
	return append(t.AppendFormat(b, time.RFC3339Nano), '"')
}
