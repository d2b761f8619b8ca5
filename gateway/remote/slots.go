package remote

import (
	"bufio"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// read takes in what the worker says until the session breaks.
func (p *peer) read(s *session, br *bufio.Reader) error {
	in := bufio.NewReaderSize(&listening{s.conn, br}, 4*bus.MaxSlotLine)
	for {
		b, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		s.life.sign()
		line, err := bus.ParseSlotLine(b)
		if err != nil {
			return err
		}
		if line.Sequence == 0 {
			// It is the answer to a ping, or no answer.
			if line.Op == bus.SlotRelease {
				p.recall(s, functions.InstanceID(line.Text))
			}
			continue
		}
		if err := p.answered(s, line); err != nil {
			return err
		}
	}
}

// answered tells who asked for a slot.
func (p *peer) answered(s *session, line bus.SlotLine) error {
	p.mu.Lock()
	q, ok := s.asked[line.Sequence]
	delete(s.asked, line.Sequence)
	if ok && line.Op == bus.SlotGranted {
		h := s.held[q.inst]
		if h == nil {
			h = &holding{}
			s.held[q.inst] = h
		}
		h.granted(line.Text == bus.SlotKeep)
	}
	p.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("the worker answered what nobody asked: %c %d %q", line.Op, line.Sequence, line.Text)
	case line.Op == bus.SlotGranted:
		q.answer <- nil
	default:
		q.answer <- fault.New(fault.CodeUnavailable, "%s", line.Text)
	}
	return nil
}

// admit takes a slot: one that is kept, where the worker lives for all that is known, or one that it gives. What is sent to a worker that is dead can
// often not be sent again; who asks it finds out before.
func (p *peer) admit(inst functions.InstanceID) error {
	p.mu.Lock()
	s := p.now
	if s == nil {
		p.mu.Unlock()
		return p.broken(nil)
	}
	if h := s.held[inst]; h != nil && h.kept > 0 {
		if s.life.sure() {
			h.lend()
			p.mu.Unlock()
			return nil
		}
		// It may be the last one: the question is for this one.
		h.unkeep()
		s.give(inst, h, 1)
	}
	s.sequence++
	q := question{inst, make(chan error, 1)}
	s.asked[s.sequence] = q
	s.say(bus.SlotLine{Op: bus.SlotAdmit, Sequence: s.sequence, Text: string(inst)})
	p.flush(s)
	p.mu.Unlock()
	return <-q.answer
}

// release takes a slot from a caller; of a session that broke, the worker has it.
func (p *peer) release(inst functions.InstanceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stale[inst] > 0 {
		if p.stale[inst]--; p.stale[inst] == 0 {
			delete(p.stale, inst)
		}
		return
	}
	s := p.now
	var h *holding
	if s != nil {
		h = s.held[inst]
	}
	if h == nil || h.lent == 0 {
		p.w.log.Error("a slot was given back that nobody held", "node", p.node, "inst", inst)
		return
	}
	if h.back() {
		if !s.looking {
			p.lookAfter(s, lookEvery)
		}
		return
	}
	s.give(inst, h, 1)
	p.flush(s)
}

// recall is the worker's wish to have back what is kept of an instance. The next look gives it, at once: who reads does not write.
func (p *peer) recall(s *session, inst functions.InstanceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := s.held[inst]; h != nil {
		h.recalled()
		p.lookAfter(s, 0)
	}
}

// lookAfter sees to the next look at what is kept; p.mu is held.
func (p *peer) lookAfter(s *session, d time.Duration) {
	s.looking = true
	if s.looks == nil {
		s.looks = time.AfterFunc(d, func() { p.look(s) })
	} else {
		s.looks.Reset(d)
	}
}

// look gives back what needs not be kept.
func (p *peer) look(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != s {
		return
	}
	kept := 0
	for inst, h := range s.held {
		s.give(inst, h, h.look())
		kept += h.kept
	}
	if s.looking = kept > 0; s.looking {
		p.lookAfter(s, lookEvery)
	}
	p.flush(s)
}

// rest ends the looks; the peer's mutex is held.
func (s *session) rest() {
	if s.looks != nil {
		s.looks.Stop()
	}
}

// give notes that the worker is to have n slots back; the peer's mutex is held.
func (s *session) give(inst functions.InstanceID, h *holding, n int) {
	for range n {
		s.say(bus.SlotLine{Op: bus.SlotRelease, Text: string(inst)})
	}
	if h.over() {
		delete(s.held, inst)
	}
}

// say has a line written by the next flush, in the order of the calls; the peer's mutex is held.
func (s *session) say(l bus.SlotLine) { s.out = l.Append(s.out) }

// flush writes what is to be said; p.mu is held, and given up while it writes. What comes meanwhile goes with the next write.
func (p *peer) flush(s *session) {
	if s.writing {
		return
	}
	s.writing = true
	for len(s.out) > 0 {
		b := s.out
		s.out = s.spare[:0]
		p.mu.Unlock()
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := s.conn.Write(b)
		if err != nil {
			// The reader sees it too, and undoes the session.
			_ = s.conn.Close()
		}
		p.mu.Lock()
		if s.spare = b; err != nil {
			s.out = s.out[:0]
		}
	}
	s.writing = false
}
