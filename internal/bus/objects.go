package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Objects is a bucket of streams of bytes by name.
type Objects struct {
	bus    *Bus
	bucket string
	store  jetstream.ObjectStore
	// stream is what is behind the bucket.
	stream jetstream.Stream
	// patience is how long whoever writes may take for a part.
	patience time.Duration
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Name     string
	Size     int64
	Modified time.Time
}

func newObjects(b *Bus, bucket string) *Objects {
	return &Objects{bus: b, bucket: bucket, store: b.stores.objects[bucket].store, stream: b.stores.objects[bucket].stream, patience: partPatience}
}

// Stream is the name of the stream behind the bucket, for Barrier.
func (o *Objects) Stream() string { return objectStream(o.bucket) }

// Has reports whether there is an object of the name.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	_, err := o.describe(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	if err != nil {
		return false, o.fail(err, "looking up", name)
	}
	return true, nil
}

// describe is what is known of the object, without waiting for its content.
func (o *Objects) describe(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	return Patiently(ctx, o.bus, func(ctx context.Context) (*jetstream.ObjectInfo, error) { return o.store.GetInfo(ctx, name, opts...) })
}

// parts is the subject of the parts of the object that the store calls so.
func (o *Objects) parts(id string) string { return "$O." + o.bucket + ".C." + id }

// Delete removes the object; it is no error where there is none.
func (o *Objects) Delete(ctx context.Context, name string) error {
	_, err := Patiently(ctx, o.bus, func(ctx context.Context) (struct{}, error) { return struct{}{}, o.store.Delete(ctx, name) })
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
