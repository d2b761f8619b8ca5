package bus

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// sharedTry bounds one try of it: what is asked while nobody leads gets no answer.
const sharedTry = 700 * time.Millisecond

// errMeanwhile is the cause of a change that was not stored, since another server stored one first.
var errMeanwhile = errors.New("its revision is another one")

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

// writeTo writes what there is into a data directory.
func (r *record[T]) writeTo(dir string) error {
	r.mu.Lock()
	data, err := r.encode(r.now)
	r.mu.Unlock()
	if err == nil {
		err = writeDurably(dir, r.file, data)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.what, err)
	}
	return nil
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
	e, err := r.stored()
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

// stored is the record as the cluster has it. While nobody leads it is asked for again.
func (r *record[T]) stored() (jetstream.KeyValueEntry, error) {
	return insist(context.Background(), sharedTimeout, firstTry, sharedTry, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return r.kv.Get(ctx, r.key) })
}

// alter changes the record as it is by now. Step says what is to be done, and how that is undone: nothing where there is nothing to do, or why it may not be
// done. While nobody leads, or another server is first, it is asked again, for up to 10 s, and others are let in meanwhile; what it does may have been stored before then.
func (r *record[T]) alter(step func() (do, undo func(), err error)) error {
	for over := time.Now().Add(electPatience); ; time.Sleep(noStreamWait) {
		err := r.alterOnce(step)
		again := unled(err) || errors.Is(err, errMeanwhile)
		if err == nil || !r.clustered || !again || time.Now().After(over) {
			return err
		}
	}
}

func (r *record[T]) alterOnce(step func() (do, undo func(), err error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refresh(); err != nil {
		return err
	}
	do, undo, err := step()
	if err != nil || do == nil {
		return err
	}
	return r.change(do, undo)
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

// save stores the record in the place of what was read last, and tries again while nobody leads; r.mu is held.
func (r *record[T]) save(data []byte) error {
	if r.kv == nil {
		return writeDurably(r.dir, r.file, data)
	}
	tries := 0
	rev, err := insist(context.Background(), sharedTimeout, firstStore, sharedTry, func(ctx context.Context) (uint64, error) {
		tries++
		rev, err := r.kv.Update(ctx, r.key, data, r.revision)
		return rev, retried(tries, err)
	})
	if tries > 1 && IsConflict(err) {
		// It may be what an earlier try stored, whose answer was lost.
		if e, gerr := r.stored(); gerr == nil && bytes.Equal(e.Value(), data) {
			rev, err = e.Revision(), nil
		}
	}
	if IsConflict(err) {
		return fault.Wrap(fault.CodeConflict, errMeanwhile, "another server changed it meanwhile").WithHint("try again")
	}
	if err == nil {
		r.revision = rev
	}
	return err
}

// made is one of those that a record lists: it was made at a time, under an id.
type made interface {
	made() (at time.Time, id string)
}

// byAge lists them, the oldest first.
func byAge[E made](all map[string]E) []E {
	return slices.SortedFunc(maps.Values(all), func(a, b E) int {
		x, one := a.made()
		y, other := b.made()
		return cmp.Or(x.Compare(y), cmp.Compare(one, other))
	})
}

// copies are what the pointers point to.
func copies[E any](all []*E) (out []E) {
	for _, e := range all {
		out = append(out, *e)
	}
	return out
}

// makeRoom lets go of the oldest that is good for nothing, where there are too many; it reports whether there is room.
func makeRoom[E made](all map[string]E, most int, useless func(E) bool) bool {
	if len(all) < most {
		return true
	}
	for _, e := range byAge(all) {
		if useless(e) {
			_, id := e.made()
			delete(all, id)
			return true
		}
	}
	return false
}

func newerRecord(where string, schema, known int) error {
	return fault.New(fault.CodeConflict, "%s has schema %d, this tatami knows %d", where, schema, known).
		WithHint("the data was written by a newer tatami: install that version")
}
