package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// outbox is what is to be published. One goroutine publishes, so that messages have one order: an endpoint table before the report that
// says the same. What comes while a message is on its way goes into the next one. It is bounded by the number of instances.
type outbox struct {
	w    *Worker
	wake chan struct{}

	mu      sync.Mutex
	pending batch
	// timer wakes the publisher for what can wait; nil where nothing does.
	timer *time.Timer
	// told is when the last report went out: each is a sign of life.
	told time.Time

	// What follows is the publisher's: the sequences, and the artifacts that a report listed last.
	tables, reports uint64
	listed          []string
	out             bus.Publisher
}

type batch struct {
	added   []*instance
	removed []bus.Departure
	changed map[*instance]struct{}
	gone    []bus.InstanceReport
	// ending are those of which the state may wait: their end follows at once, as a rule, and says as much.
	ending    map[*instance]struct{}
	fullTable bool
	full      bool
	// alive says that there is to be a report, even one that names no instance.
	alive bool
	// list says that the report is to list the artifacts, changed or not.
	list bool
}

const (
	// perMessage bounds what may carry log lines in one message.
	perMessage = 64
	// beginPause is how long the news that an instance is starting, or ending while it is idle, may wait for other news: most are ready, or gone, before
	// that.
	beginPause = 100 * time.Millisecond
)

func newOutbox(w *Worker) *outbox { return &outbox{w: w, wake: make(chan struct{}, 1)} }

func (o *outbox) add(f func(b *batch)) {
	o.mu.Lock()
	o.addLocked(f)
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) addLocked(f func(b *batch)) {
	if o.pending.changed == nil {
		o.pending.changed = map[*instance]struct{}{}
	}
	f(&o.pending)
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// begun tells within beginPause that an instance is starting.
func (o *outbox) begun(in *instance) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.addLocked(func(b *batch) { b.changed[in] = struct{}{} })
	o.wakeLater()
}

// wakeLater wakes the publisher within beginPause; o.mu is held.
func (o *outbox) wakeLater() {
	if o.timer == nil {
		o.timer = time.AfterFunc(beginPause, func() { o.add(func(b *batch) { b.late() }) })
	}
}

// late has nothing wait any longer.
func (b *batch) late() {
	maps.Copy(b.changed, b.ending)
	b.ending = nil
}

// ready publishes a new endpoint, then its state.
func (o *outbox) ready(in *instance) {
	o.add(func(b *batch) { b.added = append(b.added, in); b.changed[in] = struct{}{} })
}

// frozen tells that the instance's idle connections are of no use any more, then its state.
func (o *outbox) frozen(in *instance) { o.ready(in) }

// departed takes an endpoint back, then tells the instance's state.
func (o *outbox) departed(in *instance, state functions.InstanceState, reason string) {
	o.add(func(b *batch) {
		b.removed = append(b.removed, bus.Departure{Instance: in.id(), State: state, Reason: reason})
		b.changed[in] = struct{}{}
	})
}

// stopped takes the endpoint of an idle instance back, and tells its state within beginPause, unless it is gone by then.
func (o *outbox) stopped(in *instance, reason string) {
	o.mu.Lock()
	o.addLocked(func(b *batch) {
		b.removed = append(b.removed, bus.Departure{Instance: in.id(), State: functions.InstanceDraining, Reason: reason})
		if b.ending == nil {
			b.ending = map[*instance]struct{}{}
		}
		b.ending[in] = struct{}{}
	})
	o.wakeLater()
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) changed(in *instance) { o.add(func(b *batch) { b.changed[in] = struct{}{} }) }

func (o *outbox) gone(last bus.InstanceReport) { o.goneWith(nil, last) }

func (o *outbox) goneWith(d *bus.Departure, last bus.InstanceReport) {
	o.add(func(b *batch) {
		if d != nil {
			b.removed = append(b.removed, *d)
		}
		b.gone = append(b.gone, last)
	})
}

// beat sees to it that a report goes out if none did for as long as a worker may be silent, and returns when to come again.
func (o *outbox) beat(now time.Time) time.Duration {
	o.mu.Lock()
	silent := now.Sub(o.told)
	o.mu.Unlock()
	if silent < bus.BeatEvery {
		return bus.BeatEvery - silent
	}
	o.add(func(b *batch) { b.alive = true })
	return bus.BeatEvery
}

func (o *outbox) report()    { o.add(func(b *batch) { b.full = true }) }
func (o *outbox) wanted()    { o.add(func(b *batch) { b.full, b.list = true, true }) }
func (o *outbox) endpoints() { o.add(func(b *batch) { b.fullTable = true }) }
func (o *outbox) everything() {
	o.add(func(b *batch) { b.full, b.list, b.fullTable = true, true, true })
}

// run publishes until ctx ends, and what is pending then.
func (o *outbox) run(ctx context.Context) error {
	for {
		select {
		case <-o.wake:
			o.flush()
		case <-ctx.Done():
			o.flush()
			return nil
		}
	}
}

// flush publishes what is pending. Without a bus it stays pending: a worker takes no commands then, so that it grows no further than by
// what happens to the instances that there are.
func (o *outbox) flush() {
	if !o.w.bus.Conn().IsConnected() {
		return
	}
	o.mu.Lock()
	b := o.pending
	o.pending = batch{}
	table := *o.w.table.Load()
	maps.DeleteFunc(b.ending, func(in *instance, _ struct{}) bool { return table[in.id()] != in })
	if b.full || b.alive || len(b.changed) > 0 {
		// They cost no message of their own.
		b.late()
	}
	if o.pending.ending = b.ending; len(b.ending) == 0 && o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	o.mu.Unlock()
	o.flushTables(b)
	before := o.reports
	o.flushReports(b)
	if err := o.out.Send(o.w.bus.Conn()); err != nil {
		o.w.log.Warn("what the node has to tell was not published", "err", err)
		return
	}
	if o.reports > before {
		o.mu.Lock()
		o.told = time.Now()
		o.mu.Unlock()
	}
}

func (o *outbox) flushTables(b batch) {
	var added []bus.Endpoint
	for _, in := range b.added {
		if e, ok := in.endpoint(o.w.cfg.Node); ok && !b.fullTable {
			added = append(added, e)
		}
	}
	for len(added) > 0 || len(b.removed) > 0 {
		n := min(len(b.removed), perMessage)
		o.table(bus.EndpointTable{Endpoints: added, Removed: b.removed[:n]})
		added, b.removed = nil, b.removed[n:]
	}
	if !b.fullTable {
		return
	}
	t := bus.EndpointTable{Full: true}
	for _, in := range o.w.sorted() {
		if e, ok := in.endpoint(o.w.cfg.Node); ok {
			t.Endpoints = append(t.Endpoints, e)
		}
	}
	o.table(t)
}

func (o *outbox) flushReports(b batch) {
	for part := range slices.Chunk(b.gone, perMessage) {
		o.tell(bus.Report{Instances: part}, false)
	}
	table := *o.w.table.Load()
	r := bus.Report{Full: b.full}
	if b.full {
		for _, in := range o.w.sorted() {
			if i := in.report(); !i.State.Gone() {
				r.Instances = append(r.Instances, i)
			}
		}
	} else {
		for in := range b.changed {
			// One that is gone by now was told as such.
			if i := in.report(); table[in.id()] == in && !i.State.Gone() {
				r.Instances = append(r.Instances, i)
			}
		}
		if len(r.Instances) == 0 && !b.alive {
			return
		}
	}
	o.tell(r, b.list)
}

func (o *outbox) table(t bus.EndpointTable) {
	o.tables++
	t.Envelope, t.Listener = o.envelope(o.tables), o.w.listener.announcement()
	if o.w.cfg.Near != nil && o.w.cfg.Near(&t) {
		return
	}
	if err := o.out.Add(bus.EndpointsSubject(o.w.cfg.Node), &t); err != nil {
		o.w.log.Warn("the endpoint table was not published", "err", err)
	}
}

// tell publishes a report. A full one lists the artifacts that came, or all if some went or list says so; any other leaves them out.
func (o *outbox) tell(r bus.Report, list bool) {
	o.reports++
	r.Envelope = o.envelope(o.reports)
	r.State = o.w.nodeState()
	if all := r.State.Artifacts; !r.Full {
		r.State.Artifacts, r.State.ArtifactsKept = nil, true
	} else {
		if came, went := difference(o.listed, all); !list && !went {
			r.State.Artifacts, r.State.ArtifactsKept = came, true
		}
		o.listed = all
	}
	if err := o.out.Add(bus.ReportSubject(o.w.cfg.Node), &r); err != nil {
		o.w.log.Warn("the report was not published", "err", err)
	}
}

// difference returns what is in the second list and not in the first, and whether something is in the first only.
func difference(before, now []string) (came []string, went bool) {
	if slices.Equal(before, now) {
		return nil, false
	}
	old := make(map[string]struct{}, len(before))
	for _, s := range before {
		old[s] = struct{}{}
	}
	for _, s := range now {
		if _, was := old[s]; was {
			delete(old, s)
		} else {
			came = append(came, s)
		}
	}
	return came, len(old) > 0
}

func (o *outbox) envelope(sequence uint64) bus.Envelope {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	return bus.Envelope{Schema: bus.Schema, Boot: o.w.bus.Boot(), Node: o.w.cfg.Node, Sequence: sequence, Epoch: o.w.epoch}
}

// sorted lists the instances by id.
func (w *Worker) sorted() []*instance {
	t := *w.table.Load()
	out := make([]*instance, 0, len(t))
	for _, id := range slices.Sorted(maps.Keys(t)) {
		out = append(out, t[id])
	}
	return out
}
