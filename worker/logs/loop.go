package logs

import (
	"context"
	"errors"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// patience is how long what was written after a silence waits to be read: a function that starts writes, too, and has the processors first.
	patience = 10 * time.Millisecond
	// rest is the pause after a round, so that a flood of small writes becomes few events.
	rest = 2 * time.Millisecond
	// throttleRest is the pause while nothing but throttled files are left.
	throttleRest = 20 * time.Millisecond
	// lookEvery is how often every file is looked at regardless of events.
	lookEvery  = time.Second
	sweepEvery = time.Hour
)

// loop gives every file with something to read its turn, a chunk each, round after round.
func (l *Logs) loop(ctx context.Context, w *fsnotify.Watcher) {
	buf := make([]byte, chunk)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	l.sweep(time.Now())
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		late := time.Duration(0)
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			if !l.pending() {
				late = patience
			}
			l.note(ev)
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				l.log.Warn("watching logs", "err", err)
			}
			l.markAll()
		case <-l.kick:
		case <-look.C:
			l.markAll()
		case now := <-sweep.C:
			l.sweep(now)
			continue
		case <-pause.C:
		}
		if late > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(late):
			}
		}
		l.gather(w)
		d := rest
		if l.round(buf) {
			d = throttleRest
		}
		if l.pending() {
			pause.Reset(d)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

// gather takes the events that wait.
func (l *Logs) gather(w *fsnotify.Watcher) {
	for range 4096 {
		select {
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			l.note(ev)
		default:
			return
		}
	}
}

func (l *Logs) note(ev fsnotify.Event) {
	if !ev.Has(fsnotify.Write) && !ev.Has(fsnotify.Create) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.paths[ev.Name]; f != nil {
		l.mark(f)
	}
}

// mark puts a file into the next round; l.mu is held.
func (l *Logs) mark(f *file) {
	if !f.queued {
		f.queued = true
		l.dirty = append(l.dirty, f)
	}
}

func (l *Logs) markAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.paths {
		l.mark(f)
	}
}

func (l *Logs) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *Logs) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.dirty) > 0
}

// round gives each dirty file one turn. It returns true when those that are left are throttled.
func (l *Logs) round(buf []byte) (slow bool) {
	l.mu.Lock()
	files := l.dirty
	l.dirty = nil
	for _, f := range files {
		f.queued = false
	}
	l.mu.Unlock()
	slow = true
	for _, f := range files {
		switch l.turn(f.source, f.raw, buf) {
		case more:
			slow = false
		case throttled:
		default:
			continue
		}
		l.mu.Lock()
		if l.paths[f.raw.path] == f {
			l.mark(f)
		}
		l.mu.Unlock()
	}
	return slow
}
