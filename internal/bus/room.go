package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/internal/fault"
)

// roomAge is how long what is known of the free space counts.
const roomAge = 100 * time.Millisecond

// room remembers how much may be accepted, so that asking costs nothing.
type room struct {
	mu      sync.Mutex
	checked time.Time
	// left is what may be written until the next look; verdict says why there is nothing left.
	left    int64
	verdict *fault.Error
}

// Room reports storage-full when less than the reserve is left, on the filesystem or below MaxStore. Whoever takes new work asks it
// first, so that what was accepted can be finished: the server itself stops for good when a write finds the disk full.
func (b *Bus) Room() error { return b.RoomFor(0) }

// RoomFor is Room for so many bytes about to be written. Bytes asked for count against what is left until the next look at the disk.
func (b *Bus) RoomFor(bytes int64) error {
	if err := b.failure.get(); err != nil {
		return err
	}
	r := &b.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.left <= bytes || now.Sub(r.checked) > roomAge {
		r.checked = now
		r.left, r.verdict = b.checkRoom()
	}
	if r.left <= bytes {
		b.spares.hurry()
		return r.verdict
	}
	r.left -= bytes
	return nil
}

// checkRoom returns how much may be written, and the reason for which no more may.
func (b *Bus) checkRoom() (int64, *fault.Error) {
	full := func(format string, args ...any) *fault.Error {
		return fault.New(fault.CodeStorageFull, format, args...).
			WithHint("free disk space or raise --max-store; what was accepted goes on, and acceptance resumes by itself")
	}
	free, err := diskFree(b.cfg.DataDir)
	if err != nil {
		return 0, fault.Wrap(fault.CodeUnavailable, err, "reading the free space")
	}
	used, err := b.Used()
	if err != nil {
		return 0, fault.Wrap(fault.CodeUnavailable, err, "reading the size of the store")
	}
	onDisk := free - b.cfg.ReserveBytes
	// A small store keeps a quarter of itself: the reserve is meant for disks.
	inStore := b.cfg.MaxStore - min(b.cfg.ReserveBytes, b.cfg.MaxStore/4) - used
	if onDisk < inStore {
		return onDisk, full("%s has %s free, of which %s are kept in reserve",
			b.cfg.DataDir, humanize.IBytes(uint64(max(free, 0))), humanize.IBytes(uint64(b.cfg.ReserveBytes)))
	}
	return inStore, full("the store holds %s of the %s it may", humanize.IBytes(uint64(used)), humanize.IBytes(uint64(b.cfg.MaxStore)))
}

// Used is how many bytes the streams and buckets hold.
func (b *Bus) Used() (int64, error) {
	acc, err := b.srv.LookupAccount(AccountTatami)
	if err != nil {
		return 0, fmt.Errorf("finding account %s: %w", AccountTatami, err)
	}
	return int64(acc.JetStreamUsage().Store), nil
}

// Fault gives an error of the JetStream client its code: storage-full where the store has no room, unavailable where the server does
// not answer. doing says what failed, for the message.
func (b *Bus) Fault(err error, doing string) error { return b.storeFault(err, doing) }

func (b *Bus) storeFault(err error, doing string) error {
	if err == nil {
		return nil
	}
	if f := fault.From(err); f != nil {
		return err
	}
	if cause := b.failure.get(); cause != nil {
		// The server answers nothing then; the timeout would tell less.
		return cause
	}
	if isFull(err) {
		return fault.Wrap(fault.CodeStorageFull, err, "%s", doing).
			WithHint("free disk space or raise --max-store")
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.Wrap(fault.CodeBodyTooLarge, err, "%s", doing)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), busy(err):
		return fault.Wrap(fault.CodeUnavailable, err, "%s", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Error codes of the server for a store without room.
const (
	errAccountResources = 10002
	errInsufficient     = 10023
	errStorageResources = 10047
)

func isFull(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case errAccountResources, errInsufficient, errStorageResources:
			return true
		}
		return strings.Contains(api.Description, "no space left") || strings.Contains(api.Description, "maximum bytes exceeded")
	}
	return strings.Contains(err.Error(), "no space left")
}
