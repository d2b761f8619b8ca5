package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// leadTTL is how long the key of a server that vanished stays: another one leads after that.
	leadTTL = 3 * time.Second
	// leadRenew is how often whoever leads says so, leadAsk how often the others ask whether they may.
	leadRenew = time.Second
	leadAsk   = 500 * time.Millisecond
	// leadMargin is how long before its key ends whoever leads stops, for the clocks' sake.
	leadMargin = 500 * time.Millisecond
	leadKey    = "scheduler"
	// leadLeave is how long a server leaves the leadership to one that hears more.
	leadLeave = 5 * time.Second
)

// Leader is the record of who leads.
type Leader struct {
	Schema int `json:"schema"`
	// Server is its name, Boot its run.
	Server string `json:"server"`
	Boot   string `json:"boot"`
	// Address is where the server takes what the others hand on to it.
	Address string `json:"address,omitempty"`
	// Moved is where everything that the cluster had stored is now: nobody leads any more.
	Moved string `json:"moved,omitempty"`
}

// Leaders calls fn with who leads, nil for nobody, whenever that changes, until ctx ends.
func (b *Bus) Leaders(ctx context.Context, fn func(*Leader)) error {
	kv := b.stores.buckets[BucketLead]
	if kv == nil {
		return errAlone()
	}
	told := make(chan jetstream.KeyValueEntry)
	var watching sync.WaitGroup
	watching.Go(func() {
		b.watchLead(ctx, kv, func(e jetstream.KeyValueEntry) {
			select {
			case told <- e:
			case <-ctx.Done():
			}
		})
	})
	defer watching.Wait()
	ask := time.NewTimer(0)
	defer ask.Stop()
	var last Leader
	var revision uint64
	for {
		var e jetstream.KeyValueEntry
		select {
		case <-ctx.Done():
			return nil
		case e = <-told:
		case <-ask.C:
			// A watch is begun late where its server has only just started, and is silent for a while where that has died.
			e = b.leader(ctx, kv)
			ask.Reset(leadRenew)
		}
		l, known := leaderOf(e)
		if !known || l == last || e.Revision() < revision {
			continue
		}
		if last, revision = l, e.Revision(); l == (Leader{}) {
			fn(nil)
		} else {
			fn(&l)
		}
	}
}

// watchLead calls fn with every change of who leads, until ctx ends.
func (b *Bus) watchLead(ctx context.Context, kv jetstream.KeyValue, fn func(jetstream.KeyValueEntry), opts ...jetstream.WatchOpt) {
	for ctx.Err() == nil {
		w, err := b.watch(ctx, kv, leadKey, opts...)
		if err == nil {
			each(ctx, w, fn)
			_ = w.Stop()
			continue
		}
		select {
		case <-time.After(leadRenew):
		case <-ctx.Done():
		}
	}
}

// each calls fn with what a watch tells, until it ends or ctx does.
func each(ctx context.Context, w jetstream.KeyWatcher, fn func(jetstream.KeyValueEntry)) {
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return
			}
			fn(e)
		case <-ctx.Done():
			return
		}
	}
}

// leader asks for the entry of who leads; nil where there is none, or no answer.
func (b *Bus) leader(ctx context.Context, kv jetstream.KeyValue) jetstream.KeyValueEntry {
	ctx, cancel := context.WithTimeout(ctx, ledPatience)
	defer cancel()
	e, err := kv.Get(ctx, leadKey)
	if err != nil {
		return nil
	}
	return e
}

// leaderOf reads an entry of the bucket; empty where nobody leads, false where it does not tell.
func leaderOf(e jetstream.KeyValueEntry) (Leader, bool) {
	if e == nil {
		return Leader{}, false
	}
	if e.Operation() != jetstream.KeyValuePut {
		return Leader{}, true
	}
	l, err := Decode[Leader](e.Value())
	return l, err == nil
}

func errAlone() error {
	return fault.New(fault.CodeInternal, "a server that stands alone has nobody to lead")
}

// Lead has f run whenever this server is the one of the cluster that leads, and returns when ctx ends or f fails. F's context ends when the
// server no longer leads, before another one does; f is to end soon when ctx does, for nobody else leads until then. Epoch grows with every change of
// leader: it fences what one commands that does not know yet that it was replaced. At the end the leadership is given back at once. Address is told to
// the others. Whoever leads has the others lead the streams, from before f is run; see yield. A server that misses another one which a third one hears
// has that one lead, where Look runs. When ctx ends the others learn that this server ends, and lead the streams without it.
func (b *Bus) Lead(ctx context.Context, address string, f func(ctx context.Context, epoch uint64) error) error {
	kv := b.stores.buckets[BucketLead]
	if kv == nil {
		return errAlone()
	}
	value, err := json.Marshal(Leader{Schema: Schema, Server: b.identity.ServerName, Boot: b.boot, Address: address})
	if err != nil {
		return err
	}
	c := &candidate{bus: b, kv: kv, value: value}
	lasting, end := context.WithCancel(ctx)
	var leaving sync.WaitGroup
	defer leaving.Wait()
	defer end()
	leaving.Go(func() {
		// Whoever leads next is not to have this server lead the streams.
		if <-lasting.Done(); ctx.Err() != nil {
			b.leave()
		}
	})
	for ctx.Err() == nil {
		epoch := c.win(ctx)
		if epoch == 0 {
			break
		}
		b.log.Info("this server leads", "epoch", epoch)
		err = c.serve(ctx, epoch, f)
		b.log.Info("this server leads no longer", "epoch", epoch)
		if err != nil {
			return err
		}
	}
	return nil
}

// candidate is a server that wants to lead.
type candidate struct {
	bus   *Bus
	kv    jetstream.KeyValue
	value []byte
	// last is what the key is to say for ever when this server leads no longer; nil: another one may lead.
	last []byte
	// free is since when nobody leads, as a server knows that is not the one to.
	free time.Time
}

// win returns when the server leads, with the revision that it got by that; or 0 when ctx ends.
func (c *candidate) win(ctx context.Context) uint64 {
	freed := make(chan struct{}, 1)
	watched, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { c.watch(watched, freed) })
	defer watching.Wait()
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-freed:
		case <-timer.C:
		case <-ctx.Done():
			return 0
		}
		if c.mayAsk(ctx) {
			if rev := c.ask(ctx); rev > 0 {
				return rev
			}
		}
		timer.Reset(leadAsk)
	}
}

// mayAsk reports whether it is this server's turn: one that hears more goes first, as long as nobody leads for a while.
func (c *candidate) mayAsk(ctx context.Context) bool {
	if !c.bus.sight.isParted() {
		c.free = time.Time{}
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, leadRenew)
	defer cancel()
	if _, err := c.kv.Get(ctx, leadKey); !errors.Is(err, jetstream.ErrKeyNotFound) {
		c.free = time.Time{}
		return false
	}
	if c.free.IsZero() {
		c.free = time.Now()
	}
	return time.Since(c.free) > leadLeave
}

// ask wants the key, and returns its revision where this server got it.
func (c *candidate) ask(ctx context.Context) (rev uint64) {
	// What is asked while nobody leads the bucket gets no answer.
	ctx, cancel := context.WithTimeout(ctx, leadRenew)
	defer cancel()
	rev, err := c.kv.Create(ctx, leadKey, c.value, jetstream.KeyTTL(leadTTL))
	switch {
	case err == nil:
		return rev
	case errors.Is(err, jetstream.ErrKeyExists):
		// It may be this server's own: of a question whose answer came too late.
		if c.own(ctx, &rev) {
			return rev
		}
	case ctx.Err() == nil:
		c.bus.log.Debug("the leadership cannot be asked for", "err", err)
	}
	return 0
}

// watch tells when nobody leads, until ctx ends.
func (c *candidate) watch(ctx context.Context, freed chan<- struct{}) {
	c.bus.watchLead(ctx, c.kv, func(e jetstream.KeyValueEntry) {
		if e == nil || e.Operation() == jetstream.KeyValuePut {
			return
		}
		select {
		case freed <- struct{}{}:
		default:
		}
	}, jetstream.UpdatesOnly())
}

// serve runs f until the leadership ends, and gives it back.
func (c *candidate) serve(ctx context.Context, epoch uint64, f func(context.Context, uint64) error) error {
	term, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	yielded := make(chan struct{})
	var yielding sync.WaitGroup
	yielding.Go(func() { c.bus.yield(term, yielded) })
	defer yielding.Wait()
	yielding.Go(func() {
		select {
		case <-c.bus.sight.partedNow():
			c.bus.log.Info("another server hears more than this one, and is to lead", "epoch", epoch)
			end()
		case <-term.Done():
		}
	})
	go func() {
		// F would wait for the streams while they change hands.
		<-yielded
		done <- f(term, epoch)
	}()
	// F may take a while to end when it is asked to: nobody else is to lead before that.
	rev := c.hold(context.WithoutCancel(ctx), epoch, done)
	end()
	err := <-done
	if rev == 0 {
		return err
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), leadRenew)
	defer cancel()
	if c.last != nil && err == nil {
		_, err = c.kv.Update(release, leadKey, c.last, rev)
		return err
	}
	if derr := c.kv.Delete(release, leadKey, jetstream.LastRevision(rev)); derr != nil {
		c.bus.log.Warn("the leadership is not given back; it ends by itself", "err", derr)
	}
	return err
}

// hold renews the key until it is lost, then it returns 0, or f has ended: then it returns the key's revision. What f returned goes back into done.
func (c *candidate) hold(ctx context.Context, rev uint64, done chan error) uint64 {
	until := time.NewTimer(leadTTL - leadMargin)
	defer until.Stop()
	over := time.Now().Add(leadTTL - leadMargin)
	tick := time.NewTicker(leadRenew)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			done <- err
			return rev
		case <-until.C:
			c.bus.log.Warn("the leadership could not be renewed in time")
			return 0
		case <-tick.C:
		}
		begun := time.Now()
		next, err := c.renew(ctx, rev, over)
		switch {
		case err == nil:
			rev, over = next, begun.Add(leadTTL-leadMargin)
			until.Reset(time.Until(over))
		case IsConflict(err) && c.own(ctx, &rev):
			// The renewal before was stored, although its answer was lost.
		case IsConflict(err):
			c.bus.log.Warn("the leadership was lost to another server", "err", err)
			return 0
		default:
			c.bus.log.Debug("the leadership is not renewed", "err", err)
		}
	}
}

// own reports whether the key is this server's, and at which revision.
func (c *candidate) own(ctx context.Context, rev *uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, leadRenew)
	defer cancel()
	e, err := c.kv.Get(ctx, leadKey)
	if err != nil {
		return false
	}
	l, err := Decode[Leader](e.Value())
	if err != nil || l.Boot != c.bus.boot || e.Revision() <= *rev {
		return false
	}
	*rev = e.Revision()
	return true
}

// renew writes the key again, if nobody else did. The client's Update would lose its end. What is written while the bucket changes hands may get no
// answer: there is to be time for another try.
func (c *candidate) renew(ctx context.Context, rev uint64, until time.Time) (uint64, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, leadRenew)
	defer cancel()
	next, err := c.put(ctx, rev)
	if err != nil {
		return 0, fmt.Errorf("renewing the leadership: %w", err)
	}
	return next, nil
}
