package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// partPatience is how long whoever writes an object may take from one part to the next; then the writing fails.
	partPatience = 30 * time.Minute
	// leftAfter is how old the last part of an object without a name is before its writer is taken for gone: none is that slow, by any server's clock.
	leftAfter = time.Hour
	// leftFirst is how long after a term's begin a cluster looks for such parts, leftEvery how often it does after that.
	leftFirst = 10 * time.Minute
	leftEvery = time.Hour
)

// ClearLeftovers removes, now and then until ctx ends, the parts of objects whose writing was cut off by the end of a server, an hour after the last of
// them was written. It is for the server of a cluster that leads; one that stands alone does it at its start.
func (b *Bus) ClearLeftovers(ctx context.Context) error {
	for wait := leftFirst; ; wait = leftEvery {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := b.clearLeftovers(ctx, time.Now().Add(-leftAfter)); err != nil && ctx.Err() == nil {
			b.log.Warn("parts of unfinished objects stay for now", "err", err)
		}
	}
}

// clearLeftovers removes parts without a name that were written before a time; a zero one stands for all.
func (b *Bus) clearLeftovers(ctx context.Context, before time.Time) error {
	for _, o := range []*Objects{b.artifacts, b.bodies} {
		n, err := o.clearLeftovers(ctx, before)
		if n > 0 {
			b.log.Info("parts of unfinished objects removed", "bucket", o.bucket, "objects", n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// clearLeftovers says of how many objects it removed parts. Without a time nothing may be written meanwhile.
func (o *Objects) clearLeftovers(ctx context.Context, before time.Time) (n int, err error) {
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(o.parts(">")))
	if err != nil {
		return 0, o.fail(err, "looking up", "")
	}
	if len(info.State.Subjects) == 0 {
		return 0, nil
	}
	// What is named after this look at the parts is seen here: the name comes last.
	whole, err := o.list(ctx)
	if err != nil {
		return 0, o.fail(err, "listing", "")
	}
	for _, w := range whole {
		delete(info.State.Subjects, o.parts(w.NUID))
	}
	for subject := range info.State.Subjects {
		left, err := o.left(ctx, subject, before)
		if err == nil && left {
			err = o.stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
			n++
		}
		if err != nil {
			return n, o.fail(err, "clearing", subject)
		}
	}
	return n, nil
}

// left reports whether the last of an object's parts was written before a time.
func (o *Objects) left(ctx context.Context, parts string, before time.Time) (bool, error) {
	if before.IsZero() {
		return true, nil
	}
	last, err := o.stream.GetLastMsgForSubject(ctx, parts)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil && last.Time.Before(before), err
}
