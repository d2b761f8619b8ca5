package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// rosterKey is the key of the roster in BucketMembers.
const rosterKey = "roster"

// rosterTimeout bounds a read or a write of a roster that is shared. It is less than a worker that connects waits.
const rosterTimeout = 3 * time.Second

// shared is a roster that the servers of a cluster have in common. It is changed by whoever knows its last revision; what others changed is
// heard of at once. Workers that are known are let in without it.
type shared struct {
	kv       jetstream.KeyValue
	revision uint64
}

// open takes up the cluster's roster; before that nobody is let in.
func (r *Roster) open(ctx context.Context, kv jetstream.KeyValue) error {
	w, err := kv.Watch(ctx, rosterKey)
	if err != nil {
		return fmt.Errorf("reading which workers joined: %w", err)
	}
	r.mu.Lock()
	r.kv = &shared{kv: kv}
	r.mu.Unlock()
	known := make(chan struct{})
	r.watching.Go(func() {
		for e := range w.Updates() {
			if e == nil {
				close(known)
				continue
			}
			if err := r.take(e); err != nil {
				r.audit.log.Error("what another server changed of the roster cannot be read", "err", err)
			}
		}
	})
	r.stop = w.Stop
	select {
	case <-known:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the hearing of changes.
func (r *Roster) close() {
	if r != nil && r.stop != nil {
		_ = r.stop()
		r.watching.Wait()
	}
}

// take takes over what is stored, and ends the connections of those who were removed since.
func (r *Roster) take(e jetstream.KeyValueEntry) error {
	f, err := parseRoster("the cluster's roster", e.Value())
	if err != nil {
		return err
	}
	removed := map[functions.NodeID]string{}
	r.mu.Lock()
	if e.Revision() > r.kv.revision {
		for node, m := range f.Workers {
			if old := r.file.Workers[node]; !m.Removed.IsZero() && old != nil && old.Removed.IsZero() {
				removed[node] = m.Key
			}
		}
		r.file, r.kv.revision = f, e.Revision()
	}
	r.mu.Unlock()
	for node, key := range removed {
		r.kick(node, key)
	}
	return nil
}

// refresh reads what others changed; r.mu is held.
func (r *Roster) refresh() error {
	if r.kv == nil {
		if r.clustered {
			return fault.New(fault.CodeUnavailable, "the server does not know the workers yet")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), rosterTimeout)
	defer cancel()
	e, err := r.kv.kv.Get(ctx, rosterKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "reading which workers joined")
	}
	f, err := parseRoster("the cluster's roster", e.Value())
	if err != nil {
		return err
	}
	r.file, r.kv.revision = f, e.Revision()
	return nil
}

// save stores the roster; r.mu is held.
func (r *Roster) save(data []byte) error {
	if r.kv == nil {
		return writeDurably(r.dir, RosterFile, data)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rosterTimeout)
	defer cancel()
	rev, err := r.kv.kv.Update(ctx, rosterKey, data, r.kv.revision)
	if err != nil {
		if IsConflict(err) {
			return fault.New(fault.CodeConflict, "the roster was changed by another server meanwhile").WithHint("try again")
		}
		return err
	}
	r.kv.revision = rev
	return nil
}
