//go:build linux

package containerd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	// MaxPrecreated is the most containers that may wait.
	MaxPrecreated = 64
	// PrecreatedCost is what a waiting container takes of the node in bytes: its shim, and what the OCI runtime has wait in it. gVisor has more than runc.
	PrecreatedCost = 48 * functions.MiB
	// autoPrecreated is how many wait at most where the number is not given, precreatedShare what part of the node's memory they take then, one in so many.
	autoPrecreated  = 8
	precreatedShare = 50
	// precreatedTime is how long a container waits after the last start of its kind.
	precreatedTime = time.Hour
	// precreatePatience is how long the making of one gives way to starts.
	precreatePatience = 5 * time.Second
	// precreateLook is how often it is looked after those that wait.
	precreateLook = time.Minute
	// precreateTime bounds the making of one.
	precreateTime = 30 * time.Second
)

// precreated keeps containers made ahead, each for one kind of sandbox that no sandbox of the pool can be: one that has been started lately by the OCI
// runtime. At most one of a kind waits. Each is used once.
type precreated struct {
	d *Driver
	// most is how many kinds are kept, patience how long the making of a container gives way to starts.
	most     int
	patience time.Duration
	wake     chan struct{}
	task     sync.WaitGroup
	cancel   context.CancelFunc

	mu     sync.Mutex
	opened bool
	// low says that what makes them can give way to functions.
	low bool
	// kinds has the one that was started last first.
	kinds []*kind
	// making is the kind of which one is being made, and made is closed when that is over.
	making *kind
	made   chan struct{}
}

// kind is a kind of sandbox: what one is like but for which instance it is.
type kind struct {
	key  [sha256.Size]byte
	spec sandbox.Spec
	art  *artifact
	// started is when one was last started, wanted since when there is none that waits.
	started, wanted time.Time
	// waits is the container that waits; nil: none does.
	waits *box
	// pause is how long none is made after one could not be made, and retry until when.
	pause time.Duration
	retry time.Time
}

// keyOf tells kinds apart: by everything of the specification, but for what names the instance. So what is started in a container that was made for a
// kind has been started before, by the same words.
func keyOf(s sandbox.Spec) [sha256.Size]byte {
	id := string(s.ID)
	s.ID, s.Record = "", nil
	s.Env = slices.Clone(s.Env)
	for i, e := range s.Env {
		s.Env[i] = strings.ReplaceAll(e, id, "")
	}
	raw, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a specification has no JSON: %v", err))
	}
	return sha256.Sum256(raw)
}

// precreatedBound is how many containers wait at most, on a node with so much memory; 0: unknown, as of 4 GiB.
func precreatedBound(given int, memory int64) int {
	if given != PoolAuto {
		return given
	}
	return int(min(autoPrecreated, cmp.Or(memory, 4*functions.GiB)/precreatedShare/PrecreatedCost))
}

func newPrecreated(d *Driver, most int) *precreated {
	return &precreated{d: d, most: most, patience: precreatePatience, wake: make(chan struct{}, 1)}
}

// open begins to make containers ahead of the starts to come.
func (p *precreated) open() {
	if p.most == 0 {
		return
	}
	_, err := p.d.cgroup.home()
	if err = errors.Join(err, p.d.cgroup.setupAside()); err != nil {
		p.d.log.Warn("containers are made ahead at no lower share of the processors than functions have", "err", err)
	}
	ctx, cancel := context.WithCancel(p.d.scope(p.d.ctx))
	p.mu.Lock()
	p.opened, p.cancel, p.low = true, cancel, err == nil
	p.mu.Unlock()
	p.task.Go(func() { p.run(ctx) })
}

// drain removes every container that waits, and returns when none is left and none is being made.
func (p *precreated) drain() {
	p.mu.Lock()
	kinds, cancel := p.kinds, p.cancel
	p.kinds, p.opened = nil, false
	p.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	p.removeAll(kinds)
	p.task.Wait()
	if err := p.d.cgroup.removeAside(); err != nil {
		p.d.log.Warn("the cgroup for the making of containers stays", "err", err)
	}
}

// drop removes what waits for starts of the artifact, and returns when there is none and none is being made.
func (p *precreated) drop(digest string) {
	p.mu.Lock()
	var gone []*kind
	p.kinds = slices.DeleteFunc(p.kinds, func(k *kind) bool {
		if k.spec.Artifact.Digest != digest {
			return false
		}
		gone = append(gone, k)
		return true
	})
	var made chan struct{}
	if p.making != nil && p.making.spec.Artifact.Digest == digest {
		made = p.made
	}
	p.mu.Unlock()
	p.removeAll(gone)
	if made != nil {
		<-made
	}
}

func (p *precreated) removeAll(kinds []*kind) {
	var all errgroup.Group
	all.SetLimit(drainers)
	for _, k := range kinds {
		if b := p.unlist(k); b != nil {
			all.Go(func() error { p.remove(b); return nil })
		}
	}
	_ = all.Wait()
}

// unlist returns the kind's container, which waits no more.
func (p *precreated) unlist(k *kind) *box {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := k.waits
	k.waits = nil
	return b
}

// remove goes on when the driver is closing.
func (p *precreated) remove(b *box) { p.d.discard(context.WithoutCancel(p.d.scope(p.d.ctx)), b) }

// count is how many wait.
func (p *precreated) count() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		if k.waits != nil {
			n++
		}
	}
	return n
}

// started notes that a sandbox was started otherwise than in one of the pool's: one for the next such start is made.
func (p *precreated) started(s sandbox.Spec, art *artifact) {
	if s.Limits.Ephemeral > 0 && s.Limits.Ephemeral < precreatedScratch {
		return
	}
	key, now := keyOf(s), time.Now()
	p.mu.Lock()
	defer p.changed()
	defer p.mu.Unlock()
	if !p.opened {
		return
	}
	i := slices.IndexFunc(p.kinds, func(k *kind) bool { return k.key == key })
	k := &kind{key: key, wanted: now}
	if i >= 0 {
		k = p.kinds[i]
		p.kinds = slices.Delete(p.kinds, i, i+1)
	}
	k.spec, k.art, k.started = s, art, now
	p.kinds = slices.Insert(p.kinds, 0, k)
}

// take returns a container for the specification, which waits no more; nil: there is none.
func (p *precreated) take(s sandbox.Spec) *box {
	if p.most == 0 {
		return nil
	}
	key := keyOf(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		if k.key == key {
			b := k.waits
			k.waits, k.wanted = nil, time.Now()
			return b
		}
	}
	return nil
}

// failed notes that the start of a container made for the specification has failed: the next one is made after a while.
func (p *precreated) failed(s sandbox.Spec) {
	key := keyOf(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		if k.key == key {
			k.retry = time.Now().Add(lastRetry)
		}
	}
}

// changed has the maker look again.
func (p *precreated) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run makes one container after the other until every kind has one, and removes what has waited for too long.
func (p *precreated) run(ctx context.Context) {
	for ctx.Err() == nil {
		k, gone, pause := p.next(time.Now())
		for _, b := range gone {
			p.remove(b)
		}
		if k != nil {
			p.make(ctx, k)
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.wake:
		}
		timer.Stop()
	}
}

// next is the kind that one is to be made of, being made from now on; nil: look again after the pause. Those that are gone are no kind's any more.
func (p *precreated) next(now time.Time) (_ *kind, gone []*box, pause time.Duration) {
	quiet := p.d.pool.starting() == 0
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.kinds[:0]
	for _, k := range p.kinds {
		old := len(kept) == p.most || now.Sub(k.started) >= precreatedTime
		if k.waits != nil && (old || k.waits.hasEnded()) {
			gone = append(gone, k.waits)
			k.waits, k.wanted = nil, now
		}
		if !old {
			kept = append(kept, k)
		}
	}
	clear(p.kinds[len(kept):])
	p.kinds = kept
	pause = precreateLook
	for _, k := range p.kinds {
		if k.waits != nil {
			continue
		}
		due := k.retry
		if patient := k.wanted.Add(p.patience); !quiet && due.Before(patient) {
			due = patient
		}
		if !due.After(now) {
			p.making, p.made = k, make(chan struct{})
			return k, gone, 0
		}
		pause = min(pause, due.Sub(now))
	}
	return nil, gone, pause
}

// make makes a container of the kind, and keeps it if it is wanted still.
func (p *precreated) make(ctx context.Context, k *kind) {
	p.mu.Lock()
	spec, art := k.spec, k.art
	// Where one could not be made, what runs may have left no time for it.
	low := p.low && k.pause == 0
	p.mu.Unlock()
	var b *box
	err := errForgotten
	if p.d.known(spec.Artifact.Digest) == art {
		b, err = p.d.precreate(ctx, spec, art, low)
	}
	p.mu.Lock()
	kept := err == nil && slices.Contains(p.kinds, k)
	switch {
	case kept:
		k.waits, k.pause = b, 0
	case errors.Is(err, errForgotten):
		p.kinds = slices.DeleteFunc(p.kinds, func(other *kind) bool { return other == k })
	case err != nil:
		k.pause = min(max(firstRetry, 2*k.pause), lastRetry)
		k.retry = time.Now().Add(k.pause)
	}
	p.mu.Unlock()
	switch {
	case kept:
	case err == nil:
		p.remove(b)
	case ctx.Err() == nil && !errors.Is(err, errForgotten):
		p.d.log.Warn("a container cannot be made ahead", "artifact", spec.Artifact.Digest, "err", err)
	}
	p.mu.Lock()
	p.making = nil
	close(p.made)
	p.mu.Unlock()
}

// errForgotten says that the artifact is being removed, or was prepared anew.
var errForgotten = errors.New("the artifact is not the one that was started")

// hasEnded reports whether the process of a container that waits is gone.
func (b *box) hasEnded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return true
	}
	raw, err := b.process.SyscallConn()
	if err != nil {
		return true
	}
	ended := true
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return ended
}
