package live

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
)

// Config configures Live. A zero field stands for its default.
type Config struct {
	// Every is the time between two pictures while somebody looks. Default 1s.
	Every time.Duration
	// IdleEvery is the same while nobody does: the history goes on. Default 5s, the history's own step.
	IdleEvery time.Duration
	// Timeout bounds the question to the scheduler. Default 800ms.
	Timeout time.Duration
	// LostAfter is how long a node may be silent until it counts as lost. Default 10s.
	LostAfter time.Duration
	// Heartbeat is the time between two comments on a stream on which nothing else is sent. Default 15s.
	Heartbeat time.Duration
	// WriteTimeout ends a stream whose reader takes nothing for so long. Default 20s.
	WriteTimeout time.Duration
	// MaxStreams bounds the open streams. Default 64.
	MaxStreams int
	// Now is the clock by which pictures are dated. Default time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Every, time.Second)
	def(&c.IdleEvery, historyStep)
	def(&c.Timeout, 800*time.Millisecond)
	def(&c.LostAfter, 10*time.Second)
	def(&c.Heartbeat, 15*time.Second)
	def(&c.WriteTimeout, 20*time.Second)
	if c.MaxStreams <= 0 {
		c.MaxStreams = 64
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Live keeps the picture of the system.
type Live struct {
	cfg Config
	src Sources
	log *slog.Logger
	// wanted asks Run for a picture before the next tick.
	wanted chan struct{}

	// What follows belongs to the goroutine of Run.
	overview  bus.Overview
	lostSince time.Time
	collected time.Time
	tracks    map[functions.Ref]*track
	known     map[string]*known
	usage     map[functions.InstanceID]usage
	history   history
	differ    differ

	feed feed
}

// New makes a Live; it begins to look when Run is called.
func New(cfg Config, src Sources, log *slog.Logger) (*Live, error) {
	if src.Overview == nil {
		return nil, errors.New("live: there is no source for the overview")
	}
	l := &Live{
		cfg: cfg.withDefaults(), src: src, log: log, wanted: make(chan struct{}, 1),
		tracks: map[functions.Ref]*track{}, known: map[string]*known{}, usage: map[functions.InstanceID]usage{},
	}
	l.feed.init()
	return l, nil
}

// Run makes pictures until ctx ends; then it ends every stream and returns nil. It is to be called once.
func (l *Live) Run(ctx context.Context) error {
	defer l.feed.close()
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	for {
		l.publish(l.collect(ctx))
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return nil
			case <-l.wanted:
				again = true
			case <-tick.C:
				again = l.feed.watched() || l.cfg.Now().Sub(l.collected) >= l.cfg.IdleEvery
			}
		}
	}
}

// publish makes the picture the latest, and an event of it if somebody looks or looked lately.
func (l *Live) publish(p *picture) {
	history := History{Step: int(historyStep / time.Second), Columns: columns[:], Points: l.history.tail(historyLen)}
	p.History = history
	var data []byte
	if l.feed.watched() {
		var err error
		if data, err = l.differ.next(&p.Snapshot, l.history.tail(1)); err != nil {
			l.log.Error("a change could not be written", obs.Err(err))
		}
	} else {
		l.differ.reset()
	}
	l.feed.publish(p, data)
}

// Snapshot returns a picture that is at most about one interval old; it waits for one if need be.
func (l *Live) Snapshot(ctx context.Context) (*Snapshot, error) {
	p, err := l.fresh(ctx)
	if err != nil {
		return nil, err
	}
	s := p.Snapshot
	return &s, nil
}

func (l *Live) fresh(ctx context.Context) (*picture, error) {
	for {
		p, changed, done := l.feed.latest()
		if done {
			return nil, errClosed
		}
		if p != nil && l.cfg.Now().Sub(p.At) < l.cfg.Every*3/2+50*time.Millisecond {
			return p, nil
		}
		select {
		case l.wanted <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
