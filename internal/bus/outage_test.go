package bus_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
)

// term leads once, and returns the epoch that it had.
func (c *trio) term(server int) (epoch uint64) {
	c.t.Helper()
	ctx, end := context.WithCancel(c.t.Context())
	defer end()
	if err := c.buses[server].Lead(ctx, "", func(_ context.Context, e uint64) error {
		epoch = e
		end()
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	return epoch
}

// When all servers were away at once whoever leads next has a higher epoch than any before, for workers that stayed refuse commands of a lower one. So it is
// where an earlier version had in memory who leads: the servers of this one put it on disk.
func TestEpochsGrowThroughAnOutage(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	before := c.term(0)
	js, name := c.buses[0].JetStream(), "KV_"+bus.BucketLead
	insistently(t, "removing the bucket", func() error {
		if err := js.DeleteStream(t.Context(), name); !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		return nil
	})
	insistently(t, "making it in memory", func() error {
		_, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bus.BucketLead, Storage: jetstream.MemoryStorage, Replicas: 3})
		return err
	})
	c.close(0, 1, 2)
	c.open(0, 1, 2)
	if after := c.term(2); after <= before {
		t.Errorf("the epoch is %d, and was %d before", after, before)
	}
	var st jetstream.Stream
	insistently(t, "asking how it is kept", func() (err error) {
		st, err = c.buses[1].JetStream().Stream(t.Context(), name)
		return err
	})
	if got := st.CachedInfo().Config; got.Storage != jetstream.FileStorage || got.Replicas != 3 || got.AllowDirect || !got.AllowMsgTTL {
		t.Errorf("who leads is stored as %+v", got)
	}
}
