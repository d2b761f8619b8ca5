package bus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// partSize is how much of an object one message holds.
	partSize = 128 << 10
	// objectIDLength is that of what the store calls an object's parts by.
	objectIDLength = 22
)

// Put stores what r yields under the name, in place of what was there, and returns its size. An error of r is returned as it is, and
// nothing is stored then, nor when ctx ends, nor when r yields too little for half an hour. Two at once of one name leave the parts of one of them behind
// until leftovers are cleared. An election of the cluster's makes it wait: r is read once, and what of it was not stored is sent again.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	old, err := o.describe(ctx, name, jetstream.GetObjectInfoShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return 0, o.fail(err, "writing", name)
	}
	// What was begun is ended or taken back, also when the caller has gone.
	w := &objectWriter{ctx: context.WithoutCancel(ctx), objects: o, id: rand.Text()[:objectIDLength]}
	src := &source{ctx: ctx, r: r, patience: o.patience}
	info, err := w.write(name, src)
	if err != nil {
		_ = o.stream.Purge(w.ctx, jetstream.WithPurgeSubject(o.parts(w.id)))
		if src.err != nil {
			return 0, src.err
		}
		return 0, o.fail(err, "writing", name)
	}
	if old != nil && !old.Deleted {
		_ = o.stream.Purge(w.ctx, jetstream.WithPurgeSubject(o.parts(old.NUID)))
	}
	return int64(info.Size), nil
}

// objectWriter writes one object: its parts, one after the other, and then what describes it.
type objectWriter struct {
	ctx     context.Context
	objects *Objects
	id      string
}

func (w *objectWriter) write(name string, r io.Reader) (*jetstream.ObjectInfo, error) {
	o := w.objects
	info := &jetstream.ObjectInfo{Bucket: o.bucket, NUID: w.id, ObjectMeta: jetstream.ObjectMeta{
		Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: partSize},
	}}
	sum, buf := sha256.New(), make([]byte, partSize)
	for end := false; !end; {
		n, err := r.Read(buf)
		end = err == io.EOF
		if err != nil && !end {
			return nil, err
		}
		if n == 0 {
			continue
		}
		info.Chunks++
		if err := w.store(strconv.FormatUint(uint64(info.Chunks), 10), &nats.Msg{Subject: o.parts(w.id), Data: buf[:n]}); err != nil {
			return nil, err
		}
		sum.Write(buf[:n])
		info.Size += uint64(n)
	}
	info.Digest = jetstream.GetObjectDigestValue(sum)
	data, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encoding what describes it: %w", err)
	}
	return info, w.store("end", &nats.Msg{
		Subject: "$O." + o.bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name)), Data: data,
		Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
	})
}

// store stores a message. In a cluster it has an id, by which it is stored once however often it is sent while the servers elect who takes it.
func (w *objectWriter) store(number string, m *nats.Msg) error {
	b := w.objects.bus
	if b.cfg.Cluster != nil {
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header.Set(jetstream.MsgIDHeader, w.id+"."+number)
	}
	_, err := Patiently(w.ctx, b, func(ctx context.Context) (uint64, error) { return b.Store(ctx, m) })
	return err
}

// source keeps the error of what is stored apart from those of the store, and fills each part: a connection yields a little at a time.
type source struct {
	ctx context.Context
	r   io.Reader
	// patience is how long a part may take.
	patience time.Duration
	err      error
}

func (s *source) Read(p []byte) (n int, err error) {
	begun := time.Now()
	for n < len(p) && err == nil {
		if err = s.ctx.Err(); err == nil {
			var m int
			m, err = s.r.Read(p[n:])
			n += m
		}
	}
	if took := time.Since(begun); took > s.patience && s.ctx.Err() == nil {
		err = fault.New(fault.CodeInvalidRequest, "%d bytes took %s: the sender is too slow", n, took.Round(time.Second))
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as whoever reads compares it
		s.err = err
	}
	return n, err
}
