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
	// named are the functions of its last message.
	named map[functions.Ref]struct{}
}

// ApplyDemand records a gateway's statement and returns the functions whose load it changes. A message that was seen before changes
// nothing. Functions that do not exist are left out: their demand is repeated while it lasts.
func (s *State) ApplyDemand(now time.Time, d bus.Demand) []functions.Ref {
	g := s.gateways[d.Gateway]
	if g == nil {
		g = &gateway{named: map[functions.Ref]struct{}{}}
		s.gateways[d.Gateway] = g
	}
	if g.boot == d.Boot && d.Sequence != 0 && d.Sequence <= g.sequence {
		return nil
	}
	g.boot, g.sequence, g.last = d.Boot, d.Sequence, now
	changed := make([]functions.Ref, 0, len(d.Functions))
	var named map[functions.Ref]struct{}
	if !d.Partial {
		named = make(map[functions.Ref]struct{}, len(d.Functions))
	}
	for _, fd := range d.Functions {
		r := fd.Ref()
		f := s.Functions[r]
		if f == nil || f.Record == nil {
			continue
		}
		if !d.Partial {
			if _, twice := named[r]; twice {
				continue
			}
			named[r] = struct{}{}
		}
		g.named[r] = struct{}{}
		if f.state(now, d.Gateway, fd) {
			changed = append(changed, r)
		}
	}
	if d.Partial {
		return changed
	}
	for r := range g.named {
		if _, still := named[r]; still {
			continue
		}
		if f := s.Functions[r]; f != nil && f.silence(d.Gateway) {
			changed = append(changed, r)
		}
	}
	g.named = named
	return changed
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
