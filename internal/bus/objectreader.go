package bus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Open returns the object and its size; not-found where there is none. Its content is checked against its digest: a read that ends
// without an error gave all of it unharmed. Reading ends with ctx. An election of the cluster's makes a read wait.
func (o *Objects) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	info, err := o.describe(ctx, name)
	if err != nil {
		return nil, 0, o.fail(err, "reading", name)
	}
	if info.Size > 1<<62 {
		return nil, 0, fmt.Errorf("reading %s %s: it cannot have %d bytes", o.bucket, name, info.Size)
	}
	r := &objectReader{objects: o, info: info, left: int64(info.Size), sum: sha256.New()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, r.left, nil
}

// objectReader reads an object part by part. It asks for each of them, and so goes on where it was when another server leads.
type objectReader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	objects *Objects
	info    *jetstream.ObjectInfo
	// last is the sequence of the part that was read last, part what is left of it, and left how many bytes are in the parts behind it.
	last uint64
	part []byte
	left int64
	sum  hash.Hash
}

// Read reads on.
func (r *objectReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if len(r.part) == 0 {
		if r.left == 0 {
			return 0, r.end()
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	return n, nil
}

func (r *objectReader) next() error {
	o := r.objects
	m, err := o.part(r.ctx, r.info.NUID, r.last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fault.New(fault.CodeConflict, "%s in %s was replaced or deleted while it was read", r.info.Name, o.bucket).WithHint("try again")
	}
	if err != nil {
		return o.fail(err, "reading", r.info.Name)
	}
	if len(m.Data) == 0 || int64(len(m.Data)) > r.left {
		return fmt.Errorf("reading %s %s: a part has %d bytes where %d are left", o.bucket, r.info.Name, len(m.Data), r.left)
	}
	r.last, r.part = m.Sequence, m.Data
	r.left -= int64(len(m.Data))
	r.sum.Write(m.Data)
	return nil
}

// end judges what was read.
func (r *objectReader) end() error {
	if r.info.Size > 0 && jetstream.GetObjectDigestValue(r.sum) != r.info.Digest {
		return fmt.Errorf("reading %s %s: it is damaged: its content has not the digest that was written", r.objects.bucket, r.info.Name)
	}
	return io.EOF
}

// Close ends the reading, also one that another goroutine is in.
func (r *objectReader) Close() error {
	r.cancel()
	return nil
}

// part is the object's part behind the one of the sequence given, 0 for the first; jetstream.ErrMsgNotFound where there is none.
func (o *Objects) part(ctx context.Context, id string, after uint64) (*jetstream.RawStreamMsg, error) {
	return o.stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(o.parts(id)))
}
