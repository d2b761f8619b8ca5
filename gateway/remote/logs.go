package remote

import (
	"context"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// sourceBuffer is how many lines of a node may wait for those of the others.
	sourceBuffer = 64
	// followPause is the wait before a node's log that broke off is followed again.
	followPause = 250 * time.Millisecond
)

// Logs calls fn for every line asked for, of every node, on the caller's goroutine: retained lines in the order of their time, then, if the
// query follows, new ones as they come until ctx ends. Where a node cannot be read, a line of the platform's says so.
func (w *Workers) Logs(ctx context.Context, q bus.LogQuery, fn func(bus.LogLine) error) error {
	if len(*w.peers.Load()) == 0 && w.cfg.Local != nil && !q.Follow {
		return w.cfg.Local.Logs(ctx, q, fn)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &reading{w: w, ctx: ctx, q: q, fn: fn, begun: time.Now(), open: map[functions.NodeID]bool{}}
	defer r.busy.Wait()
	defer cancel()
	met := r.openAll(q)
	if err := r.history(); err != nil || !q.Follow {
		return r.ended(err)
	}
	return r.ended(r.follow(met))
}

// reading is one call of Logs.
type reading struct {
	w    *Workers
	ctx  context.Context
	q    bus.LogQuery
	fn   func(bus.LogLine) error
	busy sync.WaitGroup
	// begun is when the reading began.
	begun time.Time
	open  map[functions.NodeID]bool
	// sources are read by the caller's goroutine.
	sources []*source
}

// source is one node's log.
type source struct {
	events chan bus.LogEvent
	// failed is set before events is closed.
	failed error
	head   *bus.LogLine
	// done says that no retained line is left.
	done bool
}

// ended makes nothing of the end of a reading that follows.
func (r *reading) ended(err error) error {
	select {
	case <-r.ctx.Done():
		if r.q.Follow {
			return nil
		}
	default:
	}
	return err
}

// openAll opens the log of every node that is not open yet, and returns what is closed when there is a further node.
func (r *reading) openAll(q bus.LogQuery) (met <-chan struct{}) {
	r.w.mu.Lock()
	met = r.w.met
	r.w.mu.Unlock()
	if r.w.cfg.Local != nil && !r.open[r.w.cfg.Node] {
		r.add(r.w.cfg.Node, func(s *source) error { return r.local(s, q) })
	}
	for node, p := range *r.w.peers.Load() {
		if !r.open[node] {
			r.add(node, func(s *source) error { return r.remote(s, p, q) })
		}
	}
	return met
}

func (r *reading) add(node functions.NodeID, read func(*source) error) {
	r.open[node] = true
	s := &source{events: make(chan bus.LogEvent, sourceBuffer)}
	r.sources = append(r.sources, s)
	r.busy.Go(func() {
		defer close(s.events)
		s.failed = read(s)
	})
}

func (r *reading) put(s *source, e bus.LogEvent) error {
	select {
	case s.events <- e:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (r *reading) local(s *source, q bus.LogQuery) error {
	q.Live = func() { _ = r.put(s, bus.LogEvent{Live: true}) }
	return r.w.cfg.Local.Logs(r.ctx, q, func(l bus.LogLine) error { return r.put(s, bus.LogEvent{Line: &l}) })
}

// remote reads a worker's log. One that is followed is taken up again when it breaks off, behind the last line that came.
func (r *reading) remote(s *source, p *peer, q bus.LogQuery) error {
	live := false
	since := time.Now()
	for {
		err := p.logs(r.ctx, q, func(e bus.LogEvent) error {
			if e.Line != nil {
				since = e.Line.Time.Add(1)
			}
			again := e.Live && live
			if live = live || e.Live; again {
				return nil
			}
			return r.put(s, e)
		})
		if cerr := r.ctx.Err(); cerr != nil {
			return cerr
		}
		if !r.q.Follow && err == nil {
			return nil
		}
		if !live {
			line := bus.LogLine{Time: time.Now(), Stream: "tatami", Text: "the log on node " + string(p.node) + " cannot be read: " + err.Error()}
			if err := r.put(s, bus.LogEvent{Line: &line}); err != nil || !r.q.Follow {
				return err
			}
			if err := r.put(s, bus.LogEvent{Live: true}); err != nil {
				return err
			}
			live = true
		}
		q.Since, q.Tail = since, 0
		select {
		case <-time.After(followPause):
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		if next := r.w.peer(p.node); next != nil {
			p = next
		}
	}
}

// advance reads the next retained line of the source, if there is one.
func (r *reading) advance(s *source) error {
	s.head = nil
	select {
	case e, ok := <-s.events:
		if !ok || e.Live {
			s.done = true
			return s.failure(ok)
		}
		s.head = e.Line
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (s *source) failure(open bool) error {
	if open {
		return nil
	}
	return s.failed
}

// history gives the retained lines: of all nodes in the order of their time, the last ones where only so many are wanted.
func (r *reading) history() error {
	var last []bus.LogLine
	for {
		var first *source
		for _, s := range r.sources {
			if s.head == nil && !s.done {
				if err := r.advance(s); err != nil {
					return err
				}
			}
			if s.head != nil && (first == nil || s.head.Time.Before(first.head.Time)) {
				first = s
			}
		}
		if first == nil {
			break
		}
		line := *first.head
		first.head = nil
		if r.q.Tail <= 0 {
			if err := r.fn(line); err != nil {
				return err
			}
			continue
		}
		if last = append(last, line); len(last) >= 2*r.q.Tail {
			last = append(last[:0], last[len(last)-r.q.Tail:]...)
		}
	}
	for _, line := range last[max(0, len(last)-max(r.q.Tail, 0)):] {
		if err := r.fn(line); err != nil {
			return err
		}
	}
	return nil
}

// follow gives the lines that come, and those of nodes that join meanwhile.
func (r *reading) follow(met <-chan struct{}) error {
	lines := make(chan bus.LogLine)
	ends := make(chan error)
	pump := func(s *source) {
		r.busy.Go(func() {
			for e := range s.events {
				if e.Line == nil {
					continue
				}
				select {
				case lines <- *e.Line:
				case <-r.ctx.Done():
					return
				}
			}
			select {
			case ends <- s.failed:
			case <-r.ctx.Done():
			}
		})
	}
	pumped := 0
	for {
		for ; pumped < len(r.sources); pumped++ {
			pump(r.sources[pumped])
		}
		select {
		case l := <-lines:
			if err := r.fn(l); err != nil {
				return err
			}
		case err := <-ends:
			return err
		case <-met:
			q := r.q
			// What it wrote before it was met is new, too.
			q.Tail, q.Since = 0, r.begun
			met = r.openAll(q)
		case <-r.ctx.Done():
			return nil
		}
	}
}
