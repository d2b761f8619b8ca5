package bus_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A view whose watch has gone silent is fed anew, from where it was, once a server is missed that may have fed it.
func TestASilentViewIsFedAnew(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	ctx, stop := context.WithCancel(t.Context())
	b := c.buses[0]
	put := func(q string, n int64) {
		t.Helper()
		insistently(t, "storing", func() error {
			_, err := b.Quotas().Put(ctx, q, functions.Quota{Schema: functions.Schema, Namespace: q, Concurrent: n})
			return err
		})
	}
	put("a", 1)
	put("b", 1)
	silence := b.Quotas().Silence()
	seen := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- b.Quotas().Watch(ctx, "", func(e bus.Event[functions.Quota]) {
			seen <- fmt.Sprintf("%s %d %t %t", e.Key, e.Value.Concurrent, e.Deleted, e.Synced)
		})
	}()
	next := func() string {
		t.Helper()
		select {
		case s := <-seen:
			return s
		case err := <-ended:
			t.Fatalf("the view ended: %v", err)
		case <-time.After(time.Minute):
			t.Fatal("nothing is shown")
		}
		return ""
	}
	before := []string{next(), next(), next()}
	if want := []string{"a 1 false false", "b 1 false false", " 0 false true"}; !slices.Equal(before, want) {
		t.Fatalf("at first %q is shown", before)
	}
	silence()
	put("a", 2)
	if err := b.Quotas().Delete(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	b.Hear(now.Add(-time.Hour), bus.Sighting{Server: "gone"})
	b.Hear(now, bus.Sighting{Server: b.Identity().ServerName, Boot: b.Boot()})
	if after := []string{next(), next()}; !slices.Equal(after, []string{"a 2 false false", "b 0 true false"}) {
		t.Errorf("then %q is shown", after)
	}
	put("c", 1)
	if s := next(); s != "c 1 false false" {
		t.Errorf("at last %q is shown", s)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// unled is a watch whose server does not answer, since nobody leads.
type unled struct {
	jetstream.KeyWatcher
	t *testing.T
}

func (u unled) Stop() error {
	u.t.Error("it is waited for the server's answer")
	return nil
}

// Whoever ends a watch does not wait for its server: the last of the servers that end has nobody that answers.
func TestAWatchEndsWithoutItsServer(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	if err := bus.BegunWatch(unled{t: t}, end).Stop(); err != nil || ctx.Err() == nil {
		t.Errorf("it goes on: %v", err)
	}
}
