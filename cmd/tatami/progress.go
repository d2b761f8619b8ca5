package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// progress shows the phases of something that takes a while: with a spinner on a terminal, not at all elsewhere.
type progress struct {
	a *app

	mu     sync.Mutex
	name   string
	note   string
	begun  time.Time
	frame  int
	done   chan struct{}
	closed sync.WaitGroup
}

func (a *app) newProgress() *progress { return &progress{a: a} }

func (p *progress) shown() bool { return p.a.errTTY && !p.a.quiet }

const (
	spinFrames   = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	spinInterval = 80 * time.Millisecond
)

// start begins a phase. The one before must have ended.
func (p *progress) start(name string) {
	p.mu.Lock()
	p.name, p.note, p.begun, p.done = name, "", time.Now(), make(chan struct{})
	done := p.done
	p.mu.Unlock()
	if !p.shown() {
		return
	}
	p.closed.Go(func() {
		t := time.NewTicker(spinInterval)
		defer t.Stop()
		for {
			p.draw()
			select {
			case <-done:
				return
			case <-t.C:
			}
		}
	})
}

// say tells how far the phase is.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note = fmt.Sprintf(format, args...)
}

func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	frames := []rune(spinFrames)
	p.frame = (p.frame + 1) % len(frames)
	// A line that wraps would stay behind at each step.
	note := []rune(clean(p.note))
	note = note[:min(len(note), max(0, p.a.errWidth()-progressHead))]
	p.a.say("\r\x1b[K %s %-8s %s", string(frames[p.frame]), p.name, string(note))
}

// progressHead is how many columns a line of progress takes beside its note.
const progressHead = 13

// end ends the phase with its outcome; fail where it failed.
func (p *progress) end(format string, args ...any) {
	p.finish(green, "✔", fmt.Sprintf(format, args...))
}

// fail ends the phase, if one is under way; the error is printed by whoever returns it.
func (p *progress) fail() {
	p.mu.Lock()
	under := p.done != nil
	p.mu.Unlock()
	if under {
		p.finish(red, "✘", "")
	}
}

func (p *progress) finish(st style, mark, note string) {
	p.mu.Lock()
	close(p.done)
	p.done = nil
	p.mu.Unlock()
	p.closed.Wait()
	if !p.shown() {
		return
	}
	took := brief(time.Since(p.begun).Round(time.Millisecond))
	line := fmt.Sprintf(" %s %-8s %s", p.a.paint(true, st, mark), p.name, clean(note))
	p.a.say("\r\x1b[K%s %s\n", line, p.a.paint(true, dim, strings.Repeat(" ", max(0, 56-len([]rune(note))))+took))
}
