package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"golang.org/x/sync/errgroup"
)

const (
	// sandboxTime is what a sandbox takes from the command to its readiness.
	sandboxTime = 40 * time.Millisecond
	// stopTime is what its end takes.
	stopTime = 5 * time.Millisecond
	// beginPause is how long the news of a start waits for other news.
	beginPause = 100 * time.Millisecond
	// reportEvery is the time between a worker's full reports.
	reportEvery = 2 * time.Second
)

// fakeWorkers are workers without sandboxes. They send the messages of real ones, at the same times.
type fakeWorkers struct {
	nodes map[functions.NodeID]*fakeNode
	conns []*nats.Conn
	live  atomic.Int64
}

// fakeNode is one worker.
type fakeNode struct {
	all  *fakeWorkers
	id   functions.NodeID
	name string
	nc   *nats.Conn
	wake chan struct{}

	mu        sync.Mutex
	insts     map[functions.InstanceID]*fakeInstance
	artifacts []string
	held      map[string]struct{}
	pending   fakeBatch
	// timer wakes the publisher for what can wait.
	timer *time.Timer

	// What follows is the publisher's: sequences, and how many artifacts were listed last.
	tables, reports uint64
	listed          int
}

// fakeBatch is what is to be published, as in the worker's outbox.
type fakeBatch struct {
	added             []bus.Endpoint
	removed           []bus.Departure
	changed           map[functions.InstanceID]struct{}
	gone              []bus.InstanceReport
	fullTable, report bool
	// list says that the report is to list the artifacts.
	list bool
}

func (b *fakeBatch) init() {
	if b.changed == nil {
		b.changed = map[functions.InstanceID]struct{}{}
	}
}

type fakeInstance struct {
	report bus.InstanceReport
	ready  time.Time
	slots  int
	held   int
}

// newFakeWorkers connects n workers over so many connections.
func newFakeWorkers(b *bus.Bus, n, connections int) (*fakeWorkers, error) {
	w := &fakeWorkers{nodes: make(map[functions.NodeID]*fakeNode, n)}
	for i := range max(min(connections, n), 1) {
		nc, err := b.Connect(fmt.Sprintf("workers-%04d", i))
		if err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, nc)
	}
	for i := range n {
		node := &fakeNode{
			all: w, id: functions.NewNodeID(), name: fmt.Sprintf("node-%04d", i), wake: make(chan struct{}, 1),
			insts: map[functions.InstanceID]*fakeInstance{}, held: map[string]struct{}{}, nc: w.conns[i%len(w.conns)],
		}
		w.nodes[node.id] = node
	}
	return w, nil
}

func (w *fakeWorkers) close() {
	for _, nc := range w.conns {
		nc.Close()
	}
}

func (w *fakeWorkers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	i := 0
	for _, n := range w.nodes {
		for subject, take := range map[string]nats.MsgHandler{
			bus.CommandSubject(n.id):   n.command,
			bus.SubjectReportsWanted:   func(*nats.Msg) { n.add(func(b *fakeBatch) { b.report, b.list = true, true }) },
			bus.SubjectEndpointsWanted: func(*nats.Msg) { n.add(func(b *fakeBatch) { b.fullTable = true }) },
		} {
			if _, err := n.nc.Subscribe(subject, take); err != nil {
				return err
			}
		}
		// Workers do not report all at once.
		offset := time.Duration(i) * reportEvery / time.Duration(len(w.nodes))
		i++
		g.Go(func() error { return n.run(ctx, offset) })
	}
	return g.Wait()
}

func (n *fakeNode) run(ctx context.Context, offset time.Duration) error {
	n.add(func(b *fakeBatch) { b.report, b.list, b.fullTable = true, true, true })
	full := time.NewTimer(offset)
	defer full.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-full.C:
			full.Reset(reportEvery)
			n.add(func(b *fakeBatch) { b.report = true })
		case <-n.wake:
			if err := n.flush(); err != nil {
				return err
			}
		}
	}
}

func (n *fakeNode) add(f func(b *fakeBatch)) {
	n.mu.Lock()
	n.addLocked(f)
	n.mu.Unlock()
}

func (n *fakeNode) addLocked(f func(b *fakeBatch)) {
	n.pending.init()
	f(&n.pending)
	n.signal()
}

func (n *fakeNode) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *fakeNode) command(m *nats.Msg) {
	now := time.Now()
	c, err := bus.Decode[bus.Command](m.Data)
	if err != nil {
		panic(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.insts[c.Instance]
	switch {
	case c.Action == bus.ActionStart && in == nil:
		n.start(c, now)
	case c.Action == bus.ActionReport && c.Instance == "":
		n.addLocked(func(b *fakeBatch) { b.report, b.list = true, true })
	case in != nil && (c.Action == bus.ActionStart || c.Action == bus.ActionReport):
		n.addLocked(func(b *fakeBatch) { b.changed[c.Instance] = struct{}{} })
	case in == nil:
		n.addLocked(func(b *fakeBatch) { b.report = true })
	case in.held > 0 || in.report.State != functions.InstanceReady:
		n.addLocked(func(b *fakeBatch) { b.changed[c.Instance] = struct{}{} })
	default:
		n.end(in, c.Reason, now)
	}
}

func (n *fakeNode) start(c bus.Command, now time.Time) {
	rev := c.Revision
	in := &fakeInstance{slots: rev.Config.Concurrency, report: bus.InstanceReport{
		Instance: c.Instance, Namespace: rev.Namespace, Function: rev.Function, Revision: rev.ID, State: functions.InstanceStarting,
		Since: now, Started: now, Slots: rev.Config.Concurrency, Reserved: rev.Config.Limits.Resources(), PID: 4711,
		Phases: functions.Phases{Place: functions.Duration(now.Sub(c.Asked))},
	}}
	n.insts[c.Instance] = in
	n.all.live.Add(1)
	n.pending.init()
	n.pending.changed[c.Instance] = struct{}{}
	if n.timer == nil {
		n.timer = time.AfterFunc(beginPause, n.signal)
	}
	time.AfterFunc(sandboxTime-time.Since(now), func() { n.becomeReady(in, rev.Artifact.Digest) })
}

func (n *fakeNode) becomeReady(in *fakeInstance, digest string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.held[digest]; !known {
		n.held[digest] = struct{}{}
		n.artifacts = append(n.artifacts, digest)
	}
	r := &in.report
	r.State, r.Since, in.ready = functions.InstanceReady, time.Now(), time.Now()
	r.Phases.Create, r.Phases.Start, r.Phases.Ready = functions.Duration(28*time.Millisecond), functions.Duration(2*time.Millisecond), functions.Duration(10*time.Millisecond)
	n.addLocked(func(b *fakeBatch) {
		b.added = append(b.added, n.endpoint(in))
		b.changed[r.Instance] = struct{}{}
	})
}

func (n *fakeNode) endpoint(in *fakeInstance) bus.Endpoint {
	r := &in.report
	return bus.Endpoint{
		Instance: r.Instance, Node: n.id, Namespace: r.Namespace, Function: r.Function, Revision: r.Revision, Slots: in.slots,
		Started: r.Started, Ready: in.ready, Phases: r.Phases,
	}
}

// end tells that the instance takes no more, and after a while that it is no more.
func (n *fakeNode) end(in *fakeInstance, reason string, now time.Time) {
	r := &in.report
	r.State, r.Reason, r.Since = functions.InstanceDraining, reason, now
	n.addLocked(func(b *fakeBatch) {
		b.removed = append(b.removed, bus.Departure{Instance: r.Instance, State: r.State, Reason: reason})
		b.changed[r.Instance] = struct{}{}
	})
	time.AfterFunc(stopTime, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.insts, r.Instance)
		n.all.live.Add(-1)
		last := *r
		last.State, last.Since, last.PID = functions.InstanceStopped, time.Now(), 0
		n.addLocked(func(b *fakeBatch) { b.gone = append(b.gone, last) })
	})
}

func (n *fakeNode) flush() error {
	n.mu.Lock()
	b := n.pending
	n.pending = fakeBatch{}
	if n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
	var tables []bus.EndpointTable
	var reports []bus.Report
	if !b.fullTable && len(b.added)+len(b.removed) > 0 {
		tables = append(tables, bus.EndpointTable{Endpoints: b.added, Removed: b.removed})
	}
	if b.fullTable {
		t := bus.EndpointTable{Full: true}
		for _, id := range slices.Sorted(maps.Keys(n.insts)) {
			if in := n.insts[id]; in.report.State == functions.InstanceReady {
				t.Endpoints = append(t.Endpoints, n.endpoint(in))
			}
		}
		tables = append(tables, t)
	}
	if len(b.gone) > 0 {
		reports = append(reports, bus.Report{Instances: b.gone})
	}
	r := bus.Report{Full: b.report}
	for id, in := range n.insts {
		if _, changed := b.changed[id]; b.report || changed {
			in.report.Held = in.held
			r.Instances = append(r.Instances, in.report)
		}
	}
	if r.Full || len(r.Instances) > 0 {
		reports = append(reports, r)
	}
	artifacts := n.artifacts
	n.mu.Unlock()
	return n.publish(tables, reports, artifacts, b.list)
}

func (n *fakeNode) publish(tables []bus.EndpointTable, reports []bus.Report, artifacts []string, list bool) error {
	for i := range tables {
		n.tables++
		tables[i].Envelope = n.envelope(n.tables)
		if err := n.send(bus.EndpointsSubject(n.id), &tables[i]); err != nil {
			return err
		}
	}
	size := functions.Resources{CPU: 16000, Memory: 64 * functions.GiB, Instances: 500}
	for i := range reports {
		n.reports++
		reports[i].Envelope = n.envelope(n.reports)
		st := bus.NodeState{Name: n.name, Architecture: "amd64", Capacity: size, Allocatable: size, CPUUsed: 100, MemoryUsed: functions.GiB, ArtifactsKept: true}
		if reports[i].Full && (list || n.listed != len(artifacts)) {
			n.listed, st.Artifacts, st.ArtifactsKept = len(artifacts), artifacts, false
		}
		reports[i].State = st
		if err := n.send(bus.ReportSubject(n.id), &reports[i]); err != nil {
			return err
		}
	}
	return nil
}

func (n *fakeNode) envelope(sequence uint64) bus.Envelope {
	return bus.Envelope{Schema: bus.Schema, Boot: n.name, Node: n.id, Sequence: sequence, Epoch: bus.Epoch}
}

func (n *fakeNode) send(subject string, msg any) error {
	data, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	if err := n.nc.Publish(subject, data); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return nil
}

var errRefused = errors.New("refused")

// Admit takes a slot, Release gives it back, as the worker does.
func (w *fakeWorkers) Admit(node functions.NodeID, inst functions.InstanceID) error {
	n := w.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.insts[inst]
	if in == nil || in.report.State != functions.InstanceReady || in.held >= in.slots {
		return errRefused
	}
	in.held++
	return nil
}

// Release gives a slot back.
func (w *fakeWorkers) Release(node functions.NodeID, inst functions.InstanceID) {
	n := w.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	if in := n.insts[inst]; in != nil {
		in.held--
		in.report.LastUsed = time.Now()
	}
}

// Dial connects to an instance that answers every request with ok.
func (w *fakeWorkers) Dial(context.Context, functions.NodeID, functions.InstanceID) (net.Conn, error) {
	return &okConn{}, nil
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// okConn answers each write: a request without body is one.
type okConn struct{ left string }

func (c *okConn) Write(b []byte) (int, error) { c.left = okAnswer; return len(b), nil }

func (c *okConn) Read(b []byte) (int, error) {
	if c.left == "" {
		return 0, io.EOF
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *okConn) Close() error                     { return nil }
func (c *okConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *okConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *okConn) SetDeadline(time.Time) error      { return nil }
func (c *okConn) SetReadDeadline(time.Time) error  { return nil }
func (c *okConn) SetWriteDeadline(time.Time) error { return nil }
