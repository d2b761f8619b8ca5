package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Keys of BucketMembers.
const (
	rosterKey    = "roster"
	callersKey   = "callers"
	authorityKey = "authority"
)

// sharedTimeout bounds a read or a write of what is shared. It is less than whoever connects waits.
const sharedTimeout = 3 * time.Second

// record is what a server keeps of those who connect, as a file in its data directory. The servers of a cluster have it in common: it is changed
// by whoever knows its last revision, and what others changed is heard of at once.
type record[T any] struct {
	dir, file, key string
	// what says in words what it is.
	what  string
	parse func(where string, data []byte) (T, error)
	// encode is what is kept of it.
	encode func(T) ([]byte, error)
	// heard is called when the record has changed in the cluster, this server's changes included, with what it was and is.
	heard func(old, now T)
	log   *slog.Logger

	mu  sync.Mutex
	now T
	// clustered says that the servers of a cluster have it in common, in kv; that is nil where it is a file, or not taken up yet.
	clustered bool
	kv        jetstream.KeyValue
	revision  uint64
	// told is what heard was told last.
	told T

	stop     func() error
	watching sync.WaitGroup
}

// load reads the file, where there is one.
func (r *record[T]) load() error {
	path := filepath.Join(r.dir, r.file)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.what, err)
	}
	now, err := r.parse(path, data)
	if err == nil {
		r.now = now
	}
	return err
}

// open takes up what the servers of the cluster have in common, and hears of changes until close; it returns when what there is now was taken.
func (r *record[T]) open(ctx context.Context, b *Bus) error {
	r.mu.Lock()
	r.told, r.kv = r.now, b.stores.buckets[BucketMembers]
	r.mu.Unlock()
	w, err := b.watch(ctx, r.kv, r.key)
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.what, err)
	}
	known := make(chan struct{})
	r.watching.Go(func() {
		for e := range w.Updates() {
			if e == nil {
				close(known)
				continue
			}
			if err := r.take(e); err != nil {
				r.log.Error("what another server changed cannot be read", "record", r.what, "err", err)
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
func (r *record[T]) close() {
	if r.stop != nil {
		_ = r.stop()
		r.watching.Wait()
	}
}

// take takes over what is stored.
func (r *record[T]) take(e jetstream.KeyValueEntry) error {
	now, err := r.parse("the cluster's record of "+r.what, e.Value())
	if err != nil {
		return err
	}
	r.mu.Lock()
	if e.Revision() > r.revision {
		r.now, r.revision = now, e.Revision()
	}
	old := r.told
	r.told = now
	r.mu.Unlock()
	r.heard(old, now)
	return nil
}

// refresh reads what others changed; r.mu is held.
func (r *record[T]) refresh() error {
	if r.kv == nil {
		if r.clustered {
			return fault.New(fault.CodeUnavailable, "the server does not know yet %s", r.what)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	e, err := r.kv.Get(ctx, r.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "reading %s", r.what)
	}
	now, err := r.parse("the cluster's record of "+r.what, e.Value())
	if err == nil {
		r.now, r.revision = now, e.Revision()
	}
	return err
}

// change keeps what do changes, and has undo take it back where that fails; r.mu is held.
func (r *record[T]) change(do, undo func()) error {
	do()
	data, err := r.encode(r.now)
	if err == nil {
		err = r.save(data)
	}
	if err != nil {
		undo()
		return fmt.Errorf("writing %s: %w", r.what, err)
	}
	return nil
}

// save stores the record in the place of what was read last; r.mu is held.
func (r *record[T]) save(data []byte) error {
	if r.kv == nil {
		return writeDurably(r.dir, r.file, data)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	rev, err := r.kv.Update(ctx, r.key, data, r.revision)
	if IsConflict(err) {
		return fault.New(fault.CodeConflict, "another server changed it meanwhile").WithHint("try again")
	}
	if err == nil {
		r.revision = rev
	}
	return err
}
