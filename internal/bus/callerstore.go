package bus

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// open takes up the cluster's callers; before that nobody may call.
func (cs *Callers) open(ctx context.Context, b *Bus) error {
	s := &sharedRecord{bus: b, kv: b.stores.buckets[BucketMembers], key: callersKey, what: "who may call"}
	cs.mu.Lock()
	cs.common = s
	cs.mu.Unlock()
	return s.follow(ctx, cs.audit.log, cs.take)
}

// close ends the hearing of changes.
func (cs *Callers) close() {
	if cs != nil {
		cs.common.close()
	}
}

// take takes over what is stored, and ends the connections of those who were revoked since.
func (cs *Callers) take(e jetstream.KeyValueEntry) error {
	f, err := parseCallers("the cluster's list of callers", e.Value())
	if err != nil {
		return err
	}
	var revoked []string
	cs.mu.Lock()
	if e.Revision() > cs.common.revision {
		for id, c := range f.Callers {
			if old := cs.file.Callers[id]; !c.Revoked.IsZero() && old != nil && old.Revoked.IsZero() {
				revoked = append(revoked, id)
			}
		}
		cs.file, cs.common.revision = f, e.Revision()
	}
	cs.mu.Unlock()
	for _, id := range revoked {
		cs.kick(id)
	}
	return nil
}

// refresh reads what others changed; cs.mu is held.
func (cs *Callers) refresh() error {
	if cs.common == nil {
		if cs.clustered {
			return fault.New(fault.CodeUnavailable, "the server does not know the callers yet")
		}
		return nil
	}
	data, err := cs.common.read()
	if err != nil || data == nil {
		return err
	}
	f, err := parseCallers("the cluster's list of callers", data)
	if err == nil {
		cs.file = f
	}
	return err
}

// save stores the callers; cs.mu is held.
func (cs *Callers) save(data []byte) error {
	if cs.common == nil {
		return writeDurably(cs.dir, CallersFile, data)
	}
	return cs.common.write(data)
}
