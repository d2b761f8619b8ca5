package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// lastOf returns the sequence of the last message of a subject in the work queue, 0 where there is none.
func (q *Queue) lastOf(ctx context.Context, subject string) (uint64, error) {
	return lastSequence(ctx, q.bus, q.bus.Invocations(), subject)
}

func (q *Queue) lastDead(ctx context.Context, subject string) (uint64, error) {
	return lastSequence(ctx, q.bus, q.bus.Dead(), subject)
}

func lastSequence(ctx context.Context, b *bus.Bus, s jetstream.Stream, subject string) (uint64, error) {
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, b.Fault(err, "reading "+subject)
	}
	return m.Sequence, nil
}

// stored counts the messages of a function in the work queue, those scheduled included.
func (q *Queue) stored(ctx context.Context, hash string) (int, error) {
	n := 0
	for _, class := range []string{"inv.", "sched."} {
		if err := q.subjects(ctx, bus.StreamInvocations, class+hash+".*", func(_ string, count uint64) { n += int(count) }); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// askPatience bounds the wait for one answer of the store, which in a cluster does not come while nobody leads.
const askPatience = 20 * time.Second

func (q *Queue) ask(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	return q.bus.Conn().RequestWithContext(ctx, subject, body)
}

// subjects calls fn with each subject of a stream that matches and how many messages it has. It reads page by page: the client's own
// call holds all of them at once.
func (q *Queue) subjects(ctx context.Context, stream, match string, fn func(subject string, count uint64)) error {
	for offset := 0; ; {
		body, err := json.Marshal(map[string]any{"subjects_filter": match, "offset": offset})
		if err != nil {
			return err
		}
		m, err := q.ask(ctx, "$JS.API.STREAM.INFO."+stream, body)
		if err != nil {
			return q.bus.Fault(err, "reading the state of "+stream)
		}
		var page struct {
			Total int `json:"total"`
			Error *struct {
				Description string `json:"description"`
			} `json:"error"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		if err := json.Unmarshal(m.Data, &page); err != nil {
			return fmt.Errorf("reading the state of %s: %w", stream, err)
		}
		if page.Error != nil {
			return fmt.Errorf("reading the state of %s: %s", stream, page.Error.Description)
		}
		for s, n := range page.State.Subjects {
			fn(s, n)
		}
		offset += len(page.State.Subjects)
		if len(page.State.Subjects) == 0 || offset >= page.Total {
			return nil
		}
	}
}

const (
	// firstWindow and lastWindow are how many sequences newest reads at once.
	firstWindow = 256
	lastWindow  = 16 << 10
)

// newest calls fn with the messages of a subject from the newest on, until fn returns false. It reads forward within windows that go
// backward, so that a few of many cost little.
func (q *Queue) newest(ctx context.Context, s jetstream.Stream, subject string, fn func(*jetstream.RawStreamMsg) (bool, error)) error {
	info, err := s.Info(ctx)
	if err != nil {
		return q.bus.Fault(err, "reading "+subject)
	}
	first, end := max(info.State.FirstSeq, 1), info.State.LastSeq
	for width := uint64(firstWindow); end >= first && info.State.Msgs > 0; width = min(4*width, lastWindow) {
		begin := first
		if end-first >= width {
			begin = end - width + 1
		}
		var part []*jetstream.RawStreamMsg
		for seq := begin; seq <= end; {
			m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return q.bus.Fault(err, "reading "+subject)
			}
			seq = m.Sequence + 1
			if m.Sequence <= end {
				part = append(part, m)
			}
		}
		for _, m := range slices.Backward(part) {
			if more, err := fn(m); err != nil || !more {
				return err
			}
		}
		end = begin - 1
	}
	return nil
}

// split reads a subject of the work queue or of the dead letters: its class, the function's hash and the invocation.
func split(subject string) (class, hash string, id functions.InvocationID) {
	class, rest, _ := strings.Cut(subject, ".")
	hash, last, _ := strings.Cut(rest, ".")
	return class, hash, functions.InvocationID(last)
}
