package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// leadStream is the stream behind the bucket of who leads. Its revisions are epochs, and workers outlive servers: they go on where the stream is made anew,
// for there are far fewer than one a millisecond. A server that starts has it on disk: in memory it would have to get all of it from another one first, and while
// two of three do nobody leads.
func leadStream(replicas int, now time.Time) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: bucketStream(BucketLead), Description: "which server leads", Subjects: []string{"$KV." + BucketLead + ".>"},
		Storage: jetstream.FileStorage, Replicas: replicas, FirstSeq: uint64(now.UnixMilli()),
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1, Discard: jetstream.DiscardNew, Duplicates: dedupeWindow,
		AllowRollup: true, DenyDelete: true, AllowMsgTTL: true, SubjectDeleteMarkerTTL: leadTTL,
	}
}

// makeLead makes the bucket of who leads, or makes it anew where an earlier version had it in memory: whoever leads then leads no longer.
func makeLead(ctx context.Context, js jetstream.JetStream, replicas int) error {
	name := bucketStream(BucketLead)
	st, err := opened(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, name) })
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
	case err != nil:
		return fmt.Errorf("opening %s: %w", name, err)
	case st.CachedInfo().Config.Storage == jetstream.FileStorage:
		return nil
	default:
		if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("removing %s: %w", name, err)
		}
	}
	if _, err := js.CreateStream(ctx, leadStream(replicas, time.Now())); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	return nil
}
