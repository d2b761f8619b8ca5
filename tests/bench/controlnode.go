package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// fakeWorkers are workers without sandboxes. They send the messages of real ones, at the same times, and take as little of the processors as can
// be: where workers are real, they have their own.
type fakeWorkers struct {
	*ledger
	nodes map[functions.NodeID]*fakeNode
	// hangUp ends the connections.
	hangUp []func()
	// revisions are what was deployed, by the function's number.
	revisions []fakeRevision
	// away says that calls do not come by here: an instance counts as used when it is ready.
	away bool
}

// started is the only revision of a function by its name, and its mark.
func (w *fakeWorkers) started(name string) (*fakeRevision, *mark) {
	i, err := strconv.Atoi(strings.TrimPrefix(name, functionPrefix))
	if err != nil || i < 0 || i >= len(w.marks) {
		panic("no function of the bench: " + name)
	}
	return &w.revisions[i], &w.marks[i]
}

// fakeNode is one worker.
type fakeNode struct {
	all  *fakeWorkers
	id   functions.NodeID
	name string
	nc   *nats.Conn
	wake chan struct{}
	// listener is the field in which a worker that joined says where its instances are reached; empty for one of the server's process.
	listener string

	mu        sync.Mutex
	insts     map[functions.InstanceID]*fakeInstance
	artifacts []string
	held      map[string]struct{}
	pending   fakeBatch
	// timer wakes the publisher for what can wait.
	timer *time.Timer

	// What follows is the publisher's: sequences, how many artifacts were told of, what reports say of the node, and the room that messages
	// and their lists of what has changed are written into.
	tables, reports uint64
	listed          int
	state, room     []byte
	sends           []fakeSend
	changed         jsonList
	spare           fakeBatch
}

// fakeSend is a message in the room, up to the end from the end of the one before.
type fakeSend struct {
	subject string
	end     int
}

// fakeBatch is what is to be published, as in the worker's outbox.
type fakeBatch struct {
	// added, removed and gone are lists in JSON, of endpoints, departures and last reports.
	added, removed, gone jsonList
	changed              map[functions.InstanceID]struct{}
	// ending are those of which the state may wait.
	ending            map[functions.InstanceID]struct{}
	fullTable, report bool
	// alive says that there is to be a report, even one that names no instance.
	alive bool
	// list says that the report is to list the artifacts.
	list bool
}

func (b *fakeBatch) init() {
	if b.changed == nil {
		b.changed, b.ending = map[functions.InstanceID]struct{}{}, map[functions.InstanceID]struct{}{}
	}
}

// late has nothing wait any longer.
func (b *fakeBatch) late() {
	maps.Copy(b.changed, b.ending)
	clear(b.ending)
}

// emptied is the batch with nothing in it and its room kept.
func (b *fakeBatch) emptied() fakeBatch {
	clear(b.changed)
	clear(b.ending)
	return fakeBatch{added: b.added[:0], removed: b.removed[:0], gone: b.gone[:0], changed: b.changed, ending: b.ending}
}

// newFakeWorkers connects the plan's workers, which start what is deployed.
func newFakeWorkers(b *bus.Bus, p controlPlan, deployed []fakeRevision) (*fakeWorkers, error) {
	w := &fakeWorkers{ledger: newLedger(len(deployed)), nodes: make(map[functions.NodeID]*fakeNode, p.nodes), revisions: deployed}
	var conns []*nats.Conn
	for i := range max(min(p.connections, p.nodes), 1) {
		nc, err := b.Connect(fmt.Sprintf("workers-%04d", i))
		if err != nil {
			w.close()
			return nil, err
		}
		w.hangUp = append(w.hangUp, nc.Close)
		conns = append(conns, nc)
	}
	for i := range p.nodes {
		w.add(functions.NewNodeID(), i, conns[i%len(conns)])
	}
	return w, nil
}

func (w *fakeWorkers) add(id functions.NodeID, i int, nc *nats.Conn) {
	n := &fakeNode{
		all: w, id: id, name: fmt.Sprintf("node-%04d", i), wake: make(chan struct{}, 1),
		insts: map[functions.InstanceID]*fakeInstance{}, held: map[string]struct{}{}, nc: nc,
	}
	if w.away {
		n.listener = fmt.Sprintf(`,"listener":{"address":"127.0.0.1:%d","token":"%s"}`, 1<<15+i, rand.Text())
	}
	w.nodes[id] = n
}

// noted is the ledger.
func (w *fakeWorkers) noted() *ledger { return w.ledger }

// cpu is zero: they take the server's.
func (w *fakeWorkers) cpu() time.Duration { return 0 }

// profile has nothing to write: the profile of this process has them.
func (w *fakeWorkers) profile(string) error { return nil }

func (w *fakeWorkers) close() {
	for _, end := range w.hangUp {
		end()
	}
}

func (w *fakeWorkers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	i := 0
	for _, n := range w.nodes {
		for subject, take := range map[string]nats.MsgHandler{
			bus.CommandSubject(n.id): n.command,
			bus.SubjectReportsWanted: func(*nats.Msg) { n.add(func(b *fakeBatch) { b.report, b.list = true, true }) },
			bus.SubjectEndpointsWanted: func(m *nats.Msg) {
				if len(m.Data) == 0 || string(m.Data) == string(n.id) {
					n.add(func(b *fakeBatch) { b.fullTable = true })
				}
			},
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
	// told is when the last report went out.
	var told time.Time
	full := time.NewTimer(offset)
	defer full.Stop()
	beat := time.NewTimer(bus.BeatEvery)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-full.C:
			full.Reset(reportEvery)
			n.add(func(b *fakeBatch) { b.report = true })
		case <-beat.C:
			silent := time.Since(told)
			if silent >= bus.BeatEvery {
				n.add(func(b *fakeBatch) { b.alive = true })
				silent = 0
			}
			beat.Reset(bus.BeatEvery - silent)
		case <-n.wake:
			before := n.reports
			if err := n.flush(); err != nil {
				return err
			}
			if n.reports > before {
				told = time.Now()
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
	c, err := readCommand(m.Data)
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
	case in.held > 0 || in.state != functions.InstanceReady:
		n.addLocked(func(b *fakeBatch) { b.changed[c.Instance] = struct{}{} })
	default:
		n.end(in, c.Reason, now)
	}
}

func (n *fakeNode) start(c fakeCommand, now time.Time) {
	rev, m := n.all.started(c.Function)
	in := newFakeInstance(c, rev, m, now)
	n.insts[in.id] = in
	n.all.live.Add(1)
	m.asked.Store(c.Asked.UnixNano())
	m.commanded.Store(now.UnixNano())
	n.pending.init()
	n.pending.changed[in.id] = struct{}{}
	n.wakeLater()
	time.AfterFunc(sandboxTime-time.Since(now), func() { n.becomeReady(in, rev.digest) })
}

// wakeLater wakes the publisher for what can wait; n.mu is held.
func (n *fakeNode) wakeLater() {
	if n.timer == nil {
		n.timer = time.AfterFunc(beginPause, func() { n.add(func(b *fakeBatch) { b.late() }) })
	}
}

func (n *fakeNode) becomeReady(in *fakeInstance, digest string) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.held[digest]; !known {
		n.held[digest] = struct{}{}
		n.artifacts = append(n.artifacts, digest)
	}
	in.becomeReady(now)
	if in.mark.ready.Store(now.UnixNano()); n.all.away {
		in.lastUsed = now
	}
	n.addLocked(func(b *fakeBatch) {
		b.added.add(func(out []byte) []byte { return in.endpoint(out, n.id) })
		b.changed[in.id] = struct{}{}
	})
}

// end tells that the instance takes no more, and after a while that it is no more.
func (n *fakeNode) end(in *fakeInstance, reason string, now time.Time) {
	in.state, in.reason, in.since = functions.InstanceDraining, reason, now
	n.addLocked(func(b *fakeBatch) {
		b.removed.add(in.departure)
		b.ending[in.id] = struct{}{}
	})
	n.wakeLater()
	time.AfterFunc(stopTime, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.insts, in.id)
		delete(n.pending.ending, in.id)
		n.all.live.Add(-1)
		in.state, in.since = functions.InstanceStopped, time.Now()
		n.addLocked(func(b *fakeBatch) { b.gone.add(in.report) })
	})
}

func (n *fakeNode) flush() error {
	n.mu.Lock()
	b := n.pending
	n.pending = n.spare
	defer func() { n.spare = b.emptied() }()
	if b.report || b.alive || len(b.changed) > 0 {
		b.late()
	}
	n.pending.init()
	maps.Copy(n.pending.ending, b.ending)
	if len(b.ending) == 0 && n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
	if b.fullTable {
		b.added, b.removed = b.added[:0], b.removed[:0]
		for _, id := range slices.Sorted(maps.Keys(n.insts)) {
			if in := n.insts[id]; in.state == functions.InstanceReady {
				b.added.add(func(out []byte) []byte { return in.endpoint(out, n.id) })
			}
		}
	}
	changed := n.changed[:0]
	for id, in := range n.insts {
		if _, is := b.changed[id]; b.report || is {
			changed.add(in.report)
		}
	}
	n.changed = changed
	artifacts := n.artifacts
	n.mu.Unlock()
	if b.fullTable || len(b.added)+len(b.removed) > 0 {
		n.table(&b)
	}
	if len(b.gone) > 0 {
		n.report(b.gone, false, nil, true)
	}
	switch {
	case b.report:
		came := artifacts[n.listed:]
		if n.listed = len(artifacts); b.list {
			came = artifacts
		}
		n.report(changed, true, came, !b.list)
	case len(changed) > 0 || b.alive:
		n.report(changed, false, nil, true)
	}
	return n.send()
}

func (n *fakeNode) table(b *fakeBatch) {
	n.tables++
	out := n.envelope(n.tables)
	out = strconv.AppendBool(append(out, `,"full":`...), b.fullTable)
	out = append(appendList(append(appendList(out, "endpoints", b.added), n.listener...), "removed", b.removed), '}')
	n.say(bus.EndpointsSubject(n.id), out)
}

// report tells of the instances in the list, and of artifacts: of all that there are, or where others are kept of those that came.
func (n *fakeNode) report(instances jsonList, full bool, artifacts []string, kept bool) {
	const state = `,"state":{"name":"%s","architecture":"amd64","capacity":%[2]s,"allocatable":%[2]s,"cpuUsedMillis":100,"memoryUsedBytes":1073741824`
	const size = `{"cpuMillis":16000,"memoryBytes":68719476736,"instances":500}`
	if n.state == nil {
		n.state = fmt.Appendf(nil, state, n.name, size)
	}
	n.reports++
	out := n.envelope(n.reports)
	out = strconv.AppendBool(append(out, `,"full":`...), full)
	out = append(out, n.state...)
	for i, a := range artifacts {
		if i == 0 {
			out = append(out, `,"artifacts":[`...)
		} else {
			out = append(out, ',')
		}
		out = strconv.AppendQuote(out, a)
		if i == len(artifacts)-1 {
			out = append(out, ']')
		}
	}
	if kept {
		out = append(out, `,"artifactsKept":true`...)
	}
	out = append(appendList(append(out, '}'), "instances", instances), '}')
	n.say(bus.ReportSubject(n.id), out)
}

// envelope begins a message.
func (n *fakeNode) envelope(sequence uint64) []byte {
	return fmt.Appendf(n.room, `{"schema":%d,"boot":"%s","node":"%s","sequence":%d,"epoch":%d`, bus.Schema, n.name, n.id, sequence, bus.Epoch)
}

// say makes the message ready that ends the room.
func (n *fakeNode) say(subject string, out []byte) {
	n.room = append(out, '\n')
	n.sends = append(n.sends, fakeSend{subject, len(n.room)})
}

// send sends what was made ready, as a bus.Publisher does.
func (n *fakeNode) send() error {
	at := 0
	for _, s := range n.sends {
		if err := n.nc.Publish(s.subject, n.room[at:s.end]); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			return err
		}
		at = s.end
	}
	n.room, n.sends = n.room[:0], n.sends[:0]
	return nil
}

var errRefused = errors.New("refused")

// Admit takes a slot, Release gives it back, as the worker does.
func (w *fakeWorkers) Admit(node functions.NodeID, inst functions.InstanceID) error {
	n := w.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.insts[inst]
	if in == nil || in.state != functions.InstanceReady || in.held >= in.slots {
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
		in.lastUsed = time.Now()
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
