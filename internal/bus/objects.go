package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Objects is a bucket of streams of bytes by name.
type Objects struct {
	bus    *Bus
	bucket string
	store  jetstream.ObjectStore
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Name     string
	Size     int64
	Modified time.Time
}

func newObjects(b *Bus, bucket string) *Objects {
	return &Objects{bus: b, bucket: bucket, store: b.stores.objects[bucket]}
}

// Stream is the name of the stream behind the bucket, for Barrier.
func (o *Objects) Stream() string { return objectStream(o.bucket) }

// Put stores what r yields under the name, in place of what was there, and returns its size. An error of r is returned as it is, and
// nothing is stored then, nor when ctx ends. Two at once of one name leave the parts of one of them behind until the next start.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	src := &source{ctx: ctx, r: r}
	// The store takes back the parts of an object that was not finished, which it could not with a context that has ended.
	info, err := o.store.Put(context.WithoutCancel(ctx), jetstream.ObjectMeta{Name: name}, src)
	if err != nil {
		if src.err != nil {
			return 0, src.err
		}
		return 0, o.fail(err, "writing", name)
	}
	return int64(info.Size), nil
}

const (
	// longestReading bounds the reading of an object: without a bound the library's own holds, which is seconds.
	longestReading = time.Hour
	// openingGrace is how long an opening may go on once its context has ended: the library leaves behind what it began when it is cut off.
	openingGrace = 5 * time.Second
	// readingStep is how long one read of the library's may wait for the next part. It cannot be closed meanwhile, nor does the end of its context
	// reach it where no part comes any more.
	readingStep = 100 * time.Millisecond
)

// readingContext has the library's reads of an opened object end after readingStep: each asks for its deadline.
type readingContext struct {
	context.Context
	opened atomic.Bool
}

// Deadline is that of the whole reading while the object is being opened, and the next read's then.
func (c *readingContext) Deadline() (time.Time, bool) {
	if c.opened.Load() {
		return time.Now().Add(readingStep), true
	}
	return c.Context.Deadline()
}

// Open returns the object and its size; not-found where there is none. Its content is checked against its digest: a read that ends
// without an error gave all of it unharmed. Reading ends with ctx, and takes an hour at most.
func (o *Objects) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestReading)
	reading := &readingContext{Context: bounded}
	began := context.AfterFunc(ctx, func() { time.AfterFunc(openingGrace, cancel) })
	r, err := o.store.Get(reading, name)
	began()
	if err != nil {
		cancel()
		return nil, 0, o.fail(err, "reading", name)
	}
	reading.opened.Store(true)
	object := &openObject{ObjectResult: r, ctx: ctx, reading: reading, cancel: cancel}
	object.leave = context.AfterFunc(ctx, func() { _ = object.ObjectResult.Close() })
	info, err := r.Info()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = object.Close()
		return nil, 0, o.fail(err, "reading", name)
	}
	return object, int64(info.Size), nil
}

// openObject is an object that is being read.
type openObject struct {
	jetstream.ObjectResult
	// ctx is the caller's, reading the library's, which cancel ends.
	ctx, reading context.Context
	cancel       context.CancelFunc
	// leave has the end of the caller's context be of no consequence any more.
	leave func() bool
}

// Read reads on.
func (o *openObject) Read(p []byte) (int, error) {
	for {
		if err := cmp.Or(o.ctx.Err(), o.reading.Err()); err != nil {
			return 0, err
		}
		n, err := o.ObjectResult.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		return n, err
	}
}

// Close ends the reading, also one that another goroutine is in.
func (o *openObject) Close() error {
	o.leave()
	o.cancel()
	return o.ObjectResult.Close()
}

// Has reports whether there is an object of the name.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	_, err := Patiently(ctx, o.bus, func(ctx context.Context) (*jetstream.ObjectInfo, error) { return o.store.GetInfo(ctx, name) })
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	if err != nil {
		return false, o.fail(err, "looking up", name)
	}
	return true, nil
}

// Delete removes the object; it is no error where there is none.
func (o *Objects) Delete(ctx context.Context, name string) error {
	err := o.store.Delete(ctx, name)
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return o.fail(err, "deleting", name)
	}
	return nil
}

// List describes every object.
func (o *Objects) List(ctx context.Context) ([]ObjectInfo, error) {
	infos, err := o.list(ctx)
	if err != nil {
		return nil, o.fail(err, "listing", "")
	}
	out := make([]ObjectInfo, 0, len(infos))
	for i := range infos {
		out = append(out, ObjectInfo{infos[i].Name, int64(infos[i].Size), infos[i].ModTime})
	}
	return out, nil
}

func (o *Objects) list(ctx context.Context) ([]jetstream.ObjectInfo, error) {
	var out []jetstream.ObjectInfo
	var failed error
	err := o.bus.eachStored(ctx, o.Stream(), "$O."+o.bucket+".M.>", true, func(m storedMessage) {
		info := jetstream.ObjectInfo{}
		if err := json.Unmarshal(m.body, &info); err != nil {
			failed = fmt.Errorf("reading what describes an object of %s: %w", o.bucket, err)
		} else if !info.Deleted {
			info.ModTime = m.time
			out = append(out, info)
		}
	})
	return out, cmp.Or(failed, err)
}

// Sync returns when what was written to the bucket before the call is on disk.
func (o *Objects) Sync(ctx context.Context) error { return o.bus.Barrier(ctx, o.Stream()) }

func (o *Objects) fail(err error, doing, name string) error {
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return fault.New(fault.CodeNotFound, "there is no %s in %s", name, o.bucket)
	}
	return o.bus.storeFault(err, doing+" "+o.bucket+" "+name)
}

// source keeps the error of what is stored apart from those of the store, and fills each part: a connection yields a little at a time.
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		if err = s.ctx.Err(); err == nil {
			var m int
			m, err = s.r.Read(p[n:])
			n += m
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as whoever reads compares it
		s.err = err
	}
	return n, err
}

// reclaim removes the parts of objects whose writing was cut off by the end of an earlier process, and says of how many. Nothing may be
// written meanwhile: it is for the start of the one process that has the directory.
func (o *Objects) reclaim(ctx context.Context) (int, error) {
	stream, err := o.bus.js.Stream(ctx, o.Stream())
	if err != nil {
		return 0, o.fail(err, "opening", "")
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("$O."+o.bucket+".C.>"))
	if err != nil {
		return 0, o.fail(err, "looking up", "")
	}
	if len(info.State.Subjects) == 0 {
		return 0, nil
	}
	whole, err := o.list(ctx)
	if err != nil {
		return 0, o.fail(err, "listing", "")
	}
	for _, w := range whole {
		delete(info.State.Subjects, "$O."+o.bucket+".C."+w.NUID)
	}
	for subject := range info.State.Subjects {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return 0, o.fail(err, "clearing", subject)
		}
	}
	return len(info.State.Subjects), nil
}
