package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Keys of BucketMembers.
const (
	rosterKey  = "roster"
	callersKey = "callers"
)

// sharedTimeout bounds a read or a write of what is shared. It is less than whoever connects waits.
const sharedTimeout = 3 * time.Second

// sharedRecord is a record that the servers of a cluster have in common. It is changed by whoever knows its last revision; what others changed is
// heard of at once. Its user guards revision.
type sharedRecord struct {
	bus *Bus
	kv  jetstream.KeyValue
	key string
	// what says in words what it is.
	what     string
	revision uint64

	stop     func() error
	watching sync.WaitGroup
}

// follow calls take with what is stored, now and whenever that changes, until close; it returns when what there is now was taken.
func (s *sharedRecord) follow(ctx context.Context, log *slog.Logger, take func(jetstream.KeyValueEntry) error) error {
	w, err := s.bus.watch(ctx, s.kv, s.key)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.what, err)
	}
	known := make(chan struct{})
	s.watching.Go(func() {
		for e := range w.Updates() {
			if e == nil {
				close(known)
				continue
			}
			if err := take(e); err != nil {
				log.Error("what another server changed cannot be read", "record", s.what, "err", err)
			}
		}
	})
	s.stop = w.Stop
	select {
	case <-known:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the hearing of changes.
func (s *sharedRecord) close() {
	if s != nil && s.stop != nil {
		_ = s.stop()
		s.watching.Wait()
	}
}

// read asks for what is stored; nil where nothing is.
func (s *sharedRecord) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	e, err := s.kv.Get(ctx, s.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "reading %s", s.what)
	}
	s.revision = e.Revision()
	return e.Value(), nil
}

// write stores it in the place of what was read last.
func (s *sharedRecord) write(data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), sharedTimeout)
	defer cancel()
	rev, err := s.kv.Update(ctx, s.key, data, s.revision)
	if IsConflict(err) {
		return fault.New(fault.CodeConflict, "%s: another server changed it meanwhile", s.what).WithHint("try again")
	}
	if err == nil {
		s.revision = rev
	}
	return err
}
