package state

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// gateway is what is remembered of a sender of demand.
type gateway struct {
	boot     string
	sequence uint64
	last     time.Time
	// named are the functions whose load it stated, each with the number of the statement of everything under way when it last did.
	named map[functions.Ref]uint64
	// statement numbers the statements of everything, begun says that all of the one under way came in so far.
	statement uint64
	begun     bool
}

// ApplyDemand records a gateway's statement and returns the functions whose load it changes. A message that was seen before changes
// nothing. Functions that do not exist are left out: their demand is repeated while it lasts.
func (s *State) ApplyDemand(now time.Time, d bus.Demand) []functions.Ref {
	g := s.gateways[d.Gateway]
	if g == nil {
		g = &gateway{named: map[functions.Ref]uint64{}}
		s.gateways[d.Gateway] = g
	}
	if g.boot == d.Boot && d.Sequence != 0 && d.Sequence <= g.sequence {
		return nil
	}
	whole := g.follow(&d)
	g.boot, g.sequence, g.last = d.Boot, d.Sequence, now
	changed := make([]functions.Ref, 0, len(d.Functions))
	var seen map[functions.Ref]struct{}
	if len(d.Functions) > 1 {
		seen = make(map[functions.Ref]struct{}, len(d.Functions))
	}
	for _, fd := range d.Functions {
		r := fd.Ref()
		f := s.Functions[r]
		if _, twice := seen[r]; twice || f == nil || f.Record == nil {
			continue
		}
		if seen != nil {
			seen[r] = struct{}{}
		}
		g.named[r] = g.statement
		if f.state(now, d.Gateway, fd) {
			changed = append(changed, r)
		}
	}
	if !whole {
		return changed
	}
	for r, at := range g.named {
		if at == g.statement {
			continue
		}
		delete(g.named, r)
		if f := s.Functions[r]; f != nil && f.silence(d.Gateway) {
			changed = append(changed, r)
		}
	}
	return changed
}

// follow notes where the message stands among those that state everything, and reports whether with it everything is stated.
func (g *gateway) follow(d *bus.Demand) (whole bool) {
	if !d.Partial || d.Part == 1 {
		g.statement++
		g.begun = d.Partial
		return !d.Partial || d.Last
	}
	g.begun = g.begun && g.boot == d.Boot && d.Sequence == g.sequence+1
	if d.Part > 1 && d.Last && g.begun {
		g.begun = false
		return true
	}
	return false
}

// state takes over what a gateway states, and reports whether a decision may follow from it: where nothing waits or runs, as before, time
// alone changes what is wanted.
func (f *Function) state(now time.Time, from string, d bus.FunctionDemand) bool {
	before, known := f.Load[from]
	waiting, backlog, inFlight := max(d.Waiting, 0), max(d.Backlog, 0), max(d.InFlight, 0)
	f.History.State(from, now, max(d.Concurrency, 0), float64(waiting+inFlight))
	f.Load[from] = Load{Waiting: waiting, Backlog: backlog, InFlight: inFlight}
	switch {
	case waiting+backlog+inFlight > 0:
		f.LastDemand = now
	case d.Concurrency > 0:
		// All of it is over: when, the gateway knows better than the message's time of arrival tells.
		if at := now.Add(-max(d.Quiet.Std(), 0)); at.After(f.LastDemand) {
			f.LastDemand = at
		}
	}
	return !known || waiting+backlog+inFlight+before.Waiting+before.Backlog+before.InFlight > 0
}

// silence drops what a gateway stated, and reports whether a decision may follow from that.
func (f *Function) silence(gateway string) bool {
	l := f.Load[gateway]
	delete(f.Load, gateway)
	f.History.Drop(gateway)
	return l.Waiting+l.Backlog+l.InFlight > 0
}

// expireDemand drops what gateways stated that have fallen silent.
func (s *State) expireDemand(now time.Time) []functions.Ref {
	var changed []functions.Ref
	for id, g := range s.gateways {
		if now.Sub(g.last) < DemandTimeout {
			continue
		}
		for r := range g.named {
			if f := s.Functions[r]; f != nil && f.silence(id) {
				changed = append(changed, r)
			}
		}
		delete(s.gateways, id)
	}
	return changed
}
