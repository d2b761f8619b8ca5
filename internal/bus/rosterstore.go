package bus

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// open takes up the cluster's roster; before that nobody is let in. Workers that are known are let in without asking for it.
func (r *Roster) open(ctx context.Context, b *Bus) error {
	s := &sharedRecord{bus: b, kv: b.stores.buckets[BucketMembers], key: rosterKey, what: "which workers joined"}
	r.mu.Lock()
	r.common = s
	r.mu.Unlock()
	return s.follow(ctx, r.audit.log, r.take)
}

// close ends the hearing of changes.
func (r *Roster) close() {
	if r != nil {
		r.common.close()
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
	if e.Revision() > r.common.revision {
		for node, m := range f.Workers {
			if old := r.file.Workers[node]; !m.Removed.IsZero() && old != nil && old.Removed.IsZero() {
				removed[node] = m.Key
			}
		}
		r.file, r.common.revision = f, e.Revision()
	}
	r.mu.Unlock()
	for node, key := range removed {
		r.kick(node, key)
	}
	return nil
}

// refresh reads what others changed; r.mu is held.
func (r *Roster) refresh() error {
	if r.common == nil {
		if r.clustered {
			return fault.New(fault.CodeUnavailable, "the server does not know the workers yet")
		}
		return nil
	}
	data, err := r.common.read()
	if err != nil || data == nil {
		return err
	}
	f, err := parseRoster("the cluster's roster", data)
	if err == nil {
		r.file = f
	}
	return err
}

// save stores the roster; r.mu is held.
func (r *Roster) save(data []byte) error {
	if r.common == nil {
		return writeDurably(r.dir, RosterFile, data)
	}
	return r.common.write(data)
}
