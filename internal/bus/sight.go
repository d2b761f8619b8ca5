package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// sightEvery is how often a server of a cluster tells the others whom it hears.
	sightEvery = 300 * time.Millisecond
	// heardFor is how long a server counts as heard. Once one is missed for missedFor, and another one still hears it, there is a parting between the two:
	// that is longer, so that who dies is missed by all before anybody takes it for parted.
	heardFor  = time.Second
	missedFor = 2 * time.Second
	// turnAwayEvery is how often a server that is parted turns workers away, and turnAwayFor for how long: shorter than they take to be missed.
	turnAwayEvery = 15 * time.Second
	turnAwayFor   = 1200 * time.Millisecond
	// subjectSightings is where the servers of a cluster tell whom they hear, each a Sighting.
	subjectSightings = "tatami.servers.sightings"
)

// Sighting is what a server tells the others of its cluster.
type Sighting struct {
	Schema int `json:"schema"`
	// Server is its name, Boot its run.
	Server string `json:"server"`
	Boot   string `json:"boot"`
	// Hears are the others that it hears. Parted says that another one hears more, Leaving that it ends.
	Hears   []string `json:"hears,omitempty"`
	Parted  bool     `json:"parted,omitempty"`
	Leaving bool     `json:"leaving,omitempty"`
	// About is left out by servers of a version before.
	About *ServerInfo `json:"about,omitempty"`
}

// fit reports whether it may lead.
func (s Sighting) fit() bool { return !s.Parted && !s.Leaving }

// sight is which servers of the cluster this one hears, and whether another one hears more: two that are parted have the third one lead, for the votes of
// either would end the other's lead, again and again. It is safe for concurrent use.
type sight struct {
	server, boot string
	// about is told to the others; nil before the server knows it.
	about *ServerInfo

	mu     sync.Mutex
	others map[string]heard
	// whole are those that hear whom this one misses; empty while it misses nobody, or nobody hears them.
	whole []string
	// parted is closed while whole is not empty, which it is since a time.
	parted chan struct{}
	since  time.Time
	// unheard are those that do not count as heard; doubt is closed, and another one takes its place, when there is one more.
	unheard []string
	doubt   chan struct{}
	// leaving says that this server ends.
	leaving bool
}

type heard struct {
	Sighting
	at time.Time
	// since is when it began to be heard.
	since time.Time
}

func newSight(server, boot string) *sight {
	return &sight{server: server, boot: boot, others: map[string]heard{}, parted: make(chan struct{}), doubt: make(chan struct{})}
}

// own is what the server tells of itself.
func (s *sight) own(now time.Time) Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Sighting{Schema: Schema, Server: s.server, Boot: s.boot, Parted: len(s.whole) > 0, Leaving: s.leaving, About: s.about}
	for name, h := range s.others {
		if now.Sub(h.at) < heardFor {
			out.Hears = append(out.Hears, name)
		}
	}
	slices.Sort(out.Hears)
	return out
}

// hear takes what a server tells. The server looks around when it hears itself: what was late on the way to it has come by then.
func (s *sight) hear(now time.Time, said Sighting) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if said.Server != s.server {
		since := now
		if h := s.others[said.Server]; h.Boot == said.Boot && now.Sub(h.at) < missedFor {
			since = h.since
		}
		s.others[said.Server] = heard{said, now, since}
		return false
	}
	return said.Boot == s.boot && s.look(now)
}

// look finds who hears whom this server misses; s.mu is held.
func (s *sight) look(now time.Time) (changed bool) {
	var whole, unheard []string
	for missed, m := range s.others {
		if now.Sub(m.at) >= heardFor {
			unheard = append(unheard, missed)
		}
		if now.Sub(m.at) < missedFor {
			continue
		}
		for name, h := range s.others {
			if now.Sub(h.at) < heardFor && h.fit() && slices.Contains(h.Hears, missed) && !slices.Contains(whole, name) {
				whole = append(whole, name)
			}
		}
	}
	if slices.ContainsFunc(unheard, func(name string) bool { return !slices.Contains(s.unheard, name) }) {
		close(s.doubt)
		s.doubt = make(chan struct{})
	}
	s.unheard = unheard
	changed = (len(whole) > 0) != (len(s.whole) > 0)
	s.whole = whole
	switch {
	case changed && len(whole) > 0:
		close(s.parted)
		s.since = now
	case changed:
		s.parted = make(chan struct{})
	}
	return changed
}

// isParted reports whether another server hears more than this one.
func (s *sight) isParted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.whole) > 0
}

// partedNow is closed while another server hears more than this one.
func (s *sight) partedNow() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parted
}

// doubted is closed when a server is not heard any more that was until then.
func (s *sight) doubted() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubt
}

// mayLead reports whether another server is fit to lead what this one does: where this one misses a server, one that hears it, and else one that misses none
// and does not end.
func (s *sight) mayLead(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.whole) > 0 {
		return slices.Contains(s.whole, name)
	}
	return s.others[name].fit()
}

// leave has the server tell that it ends.
func (s *sight) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
}

// turnsAway reports whether workers are to go to another server now, by way of which all servers hear them. That is so at the beginning of a parting,
// and for a moment now and again: a worker that reaches no other server may come back after it.
func (s *sight) turnsAway(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.whole) > 0 && now.Sub(s.since)%turnAwayEvery < turnAwayFor
}

// Look tells the other servers of the cluster whom this one hears, until ctx ends. While another one hears more, it leads what this one does, and
// workers go to it.
func (b *Bus) Look(ctx context.Context) error {
	if b.sight == nil {
		return errAlone()
	}
	sub, err := b.nc.Subscribe(subjectSightings, func(m *nats.Msg) {
		said, err := Decode[Sighting](m.Data)
		if err == nil && b.sight.hear(time.Now(), said) {
			b.log.Info("whether another server hears more than this one has changed", "parted", b.sight.isParted())
			// Whoever leads next is to know it before it has others lead the streams.
			b.tell()
		}
	})
	if err != nil {
		return fmt.Errorf("hearing the other servers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var leaving sync.WaitGroup
	leaving.Go(func() { b.leaveToWhole(ctx) })
	defer leaving.Wait()
	tick := time.NewTicker(sightEvery)
	defer tick.Stop()
	for {
		b.tell()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tell tells the other servers whom this one hears.
func (b *Bus) tell() {
	here, err := json.Marshal(b.sight.own(time.Now()))
	if err == nil {
		err = b.nc.Publish(subjectSightings, here)
	}
	if err != nil {
		b.log.Debug("the other servers are not told whom this one hears", "err", err)
	}
}

// leave tells the other servers that this one ends.
func (b *Bus) leave() {
	b.sight.leave()
	b.tell()
}

// leaveToWhole has another server lead the streams, and the store as a whole, and workers go to it, while that one hears more.
func (b *Bus) leaveToWhole(ctx context.Context) {
	tick := time.NewTicker(yieldEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.sight.partedNow():
		case <-ctx.Done():
			return
		}
		if b.sight.turnsAway(time.Now()) {
			b.door.kickAll()
		}
		b.yieldAll(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
