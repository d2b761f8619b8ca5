package fleet

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// View is what is known of a pool and of what needs it.
type View struct {
	// Count is how many workers the pool was told to have; Min and Max are its owner's bounds.
	Count, Min, Max int
	// Busy says why the pool cannot be resized now; empty when it can.
	Busy string
	// Workers are those that the pool runs and means to keep.
	Workers []Worker
	// Lacking is what has no room.
	Lacking []Lack
}

// Worker is one worker of the pool.
type Worker struct {
	// Node is its node's id; empty until it has joined.
	Node functions.NodeID
	// Index is its place in the pool: when there are too many, the pool takes away the highest.
	Index int
	// Since is when the pool began to start it.
	Since time.Time
	// Open says that it takes instances, or would if this package did not drain it.
	Open bool
	// Allocatable is what it offers, Reserved what of that is taken.
	Allocatable, Reserved functions.Resources
	// Instances counts what runs on it.
	Instances int
	// Fits says that all that runs on it has room elsewhere.
	Fits bool
}

// Lack is a number of instances without room, alike in size.
type Lack struct {
	Each  functions.Resources
	Count int
}

// Policy tunes the decision. A zero field stands for its default.
type Policy struct {
	// UpAfter is how long something must have lacked room before workers are added. Default 2s.
	UpAfter time.Duration
	// DownAfter is how long nothing must have lacked room, and the number must have stood, before one is taken away. Default 5m.
	DownAfter time.Duration
	// DrainFor is how long a worker may take to become empty before it is kept after all. Default 10m.
	DrainFor time.Duration
	// ComingFor is how long a worker may take to join before nothing is expected of it any more. Default 5m.
	ComingFor time.Duration
	// Spare is the share of the rest's room that must stay free when a worker leaves. Default 0.2.
	Spare float64
}

func (p Policy) withDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&p.UpAfter, 2*time.Second)
	set(&p.DownAfter, 5*time.Minute)
	set(&p.DrainFor, 10*time.Minute)
	set(&p.ComingFor, 5*time.Minute)
	if p.Spare == 0 {
		p.Spare = 0.2
	}
	return p
}

// Memory is what a decision leaves for the next one. The zero value is that of a pool about which nothing was decided.
type Memory struct {
	// Count is how many workers the pool was told to have, Changed since when.
	Count   int
	Changed time.Time
	// Short is since when more workers are wanted; zero while they are not.
	Short time.Time
	// Calm is since when nothing has lacked room.
	Calm time.Time
	// Draining is the worker that is to leave, since Drained.
	Draining functions.NodeID
	Drained  time.Time
	// Shape is what a worker offers, as the largest of those that were there last; zero before there was one.
	Shape functions.Resources
}

// Decision is how many workers the pool should have, and why.
type Decision struct {
	// Count is the number to tell the pool; it differs from the view's only when the pool can be resized.
	Count int
	// Drain is the worker whose instances are to leave; empty where none is.
	Drain  functions.NodeID
	Reason string
	// Memory goes into the next decision.
	Memory Memory
}

// Decide returns how many workers the pool should have at an instant. The number is within the bounds, or on its way there: a pool above Max is emptied
// one by one like any other. It rises by what demand needs once that has lasted for UpAfter, and falls by one worker that is empty, or by those that never came.
func Decide(now time.Time, v View, p Policy, m Memory) Decision {
	p = p.withDefaults()
	m.observe(now, &v)
	d := &decider{now: now, view: &v, policy: p, memory: &m}
	out := d.decide()
	if v.Busy != "" && out.Count != v.Count {
		out.Reason += "; it waits: " + v.Busy
		out.Count = v.Count
	}
	out.Drain, out.Memory = m.Draining, m
	return out
}

// observe takes note of what changed since the last decision.
func (m *Memory) observe(now time.Time, v *View) {
	if m.Changed.IsZero() || m.Count != v.Count {
		m.Count, m.Changed = v.Count, now
	}
	if m.Calm.IsZero() || len(v.Lacking) > 0 {
		m.Calm = now
	}
	var shape functions.Resources
	for i := range v.Workers {
		a := v.Workers[i].Allocatable
		shape = functions.Resources{CPU: max(shape.CPU, a.CPU), Memory: max(shape.Memory, a.Memory), Instances: max(shape.Instances, a.Instances)}
	}
	if shape != (functions.Resources{}) {
		m.Shape = shape
	}
}

type decider struct {
	now    time.Time
	view   *View
	policy Policy
	memory *Memory
}

func (d *decider) decide() Decision {
	v, m := d.view, d.memory
	if v.Count < v.Min {
		d.keep()
		return Decision{Count: v.Min, Reason: fmt.Sprintf("%d is the least that the pool may have", v.Min)}
	}
	if len(v.Lacking) > 0 {
		d.keep()
		return d.up()
	}
	m.Short = time.Time{}
	if m.Draining != "" {
		return d.drained()
	}
	return d.down()
}

// keep calls off what was to leave.
func (d *decider) keep() { d.memory.Draining, d.memory.Drained = "", time.Time{} }

func (d *decider) same(format string, args ...any) Decision {
	return Decision{Count: d.view.Count, Reason: fmt.Sprintf(format, args...)}
}

// up answers demand that lacks room.
func (d *decider) up() Decision {
	v, m := d.view, d.memory
	more, large := d.missing()
	if more == 0 {
		m.Short = time.Time{}
		if large > 0 {
			return d.same("%d instances lack room and are larger than a worker", large)
		}
		return d.same("what lacks room fits on the workers that there are or come")
	}
	if m.Short.IsZero() {
		m.Short = d.now
	}
	switch count := min(v.Count+more, v.Max); {
	case count <= v.Count:
		return d.same("%d more wanted, %d is the most that the pool may have", more, v.Max)
	case d.now.Sub(m.Short) < d.policy.UpAfter:
		return d.same("%d more wanted, if that lasts", more)
	default:
		return Decision{Count: count, Reason: fmt.Sprintf("%d more wanted for %d instances without room", more, d.lacking())}
	}
}

func (d *decider) lacking() (n int) {
	for i := range d.view.Lacking {
		n += d.view.Lacking[i].Count
	}
	return n
}

// drained goes on with a drain: it ends when the worker is empty, leaves the pool's end, or has taken too long.
func (d *decider) drained() Decision {
	v, m := d.view, d.memory
	w := v.last()
	switch {
	case w == nil || w.Node != m.Draining:
		// It is gone, or another one would be taken in its place.
		d.keep()
		return d.same("the worker that was to leave is not the last one any more")
	case v.Count <= v.Min:
		d.keep()
		return d.same("%d is the least that the pool may have", v.Min)
	case w.Instances == 0:
		return Decision{Count: v.Count - 1, Reason: "the last worker is empty"}
	case d.now.Sub(m.Drained) >= d.policy.DrainFor:
		d.keep()
		m.Changed = d.now
		return d.same("the last worker was not empty within %s and stays", functions.Duration(d.policy.DrainFor))
	}
	return d.same("the last worker is being emptied: %d instances are left", w.Instances)
}

// down looks whether a worker can go.
func (d *decider) down() Decision {
	v, m := d.view, d.memory
	if v.Count <= v.Min {
		return d.same("%d is the least that the pool may have", v.Min)
	}
	if calm := min(d.now.Sub(m.Calm), d.now.Sub(m.Changed)); calm < d.policy.DownAfter {
		return d.same("none leaves before it has been quiet for %s", functions.Duration(d.policy.DownAfter))
	}
	if absent := v.Count - len(v.Workers); absent > 0 {
		count := max(v.Count-absent, v.Min)
		return Decision{Count: count, Reason: fmt.Sprintf("%d workers have no place, and are not needed", v.Count-count)}
	}
	w := v.last()
	switch {
	case w == nil:
		return d.same("the pool has no workers")
	case w.Node == "":
		if d.coming(w.Since) {
			return d.same("the last worker is still to come")
		}
		return Decision{Count: v.Count - 1, Reason: "the last worker did not join, and is not needed"}
	case w.Instances > 0 && !w.Fits:
		return d.same("what runs on the last worker does not fit elsewhere")
	case !d.spares(w):
		return d.same("without the last worker less than %.0f%% would be free", 100*d.policy.Spare)
	}
	m.Draining, m.Drained = w.Node, d.now
	return d.same("the last worker is not needed and is being emptied")
}

// spares reports whether the open workers other than w keep enough room when they take what w has.
func (d *decider) spares(w *Worker) bool {
	taken, room := w.Reserved, functions.Resources{}
	for i := range d.view.Workers {
		if o := &d.view.Workers[i]; o.Node != w.Node && o.Open {
			taken, room = taken.Add(o.Reserved), room.Add(o.Allocatable)
		}
	}
	share := 1 - d.policy.Spare
	within := func(taken, room int64) bool { return float64(taken) <= share*float64(room) }
	return within(taken.CPU, room.CPU) && within(taken.Memory, room.Memory) && within(taken.Instances, room.Instances)
}

// coming reports whether a worker that was started then may be expected to join.
func (d *decider) coming(since time.Time) bool { return d.now.Sub(since) < d.policy.ComingFor }

// last is the worker that the pool takes away when it has one too many; nil where it has none.
func (v *View) last() *Worker { return Last(v.Workers) }

// Last returns the worker that a pool takes away when it has one too many; nil where there is none.
func Last(workers []Worker) *Worker {
	var last *Worker
	for i := range workers {
		if last == nil || workers[i].Index > last.Index {
			last = &workers[i]
		}
	}
	return last
}
