package bus

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// yieldAfter is the wait before a server that leads the cluster looks which streams it leads, and yieldEvery that between two looks.
	yieldAfter = 10 * time.Second
	yieldEvery = 2 * time.Second
	// yieldPause is the wait between two streams: each is without a leader for a moment.
	yieldPause = 250 * time.Millisecond
	// stepDown asks whoever leads the store as a whole to let another one do that; only the system account may.
	stepDown        = "$JS.API.META.LEADER.STEPDOWN"
	stepDownTimeout = 2 * time.Second
)

// yield has other servers lead the streams, and the store as a whole, until ctx ends. When the server that leads the cluster dies, nothing but that
// has to be taken over then: an election of a stream's leader takes up to nine seconds, and has to come first otherwise.
func (b *Bus) yield(ctx context.Context) {
	timer := time.NewTimer(yieldAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		b.yieldAll(ctx)
		timer.Reset(yieldEvery)
	}
}

func (b *Bus) yieldAll(ctx context.Context) {
	if b.srv.JetStreamIsLeader() && b.othersCurrent() {
		b.yieldStore()
	}
	for _, name := range b.replicatedStreams() {
		if !b.srv.JetStreamIsStreamLeader(AccountTatami, name) || !b.othersHave(ctx, name) {
			continue
		}
		if err := b.srv.JetStreamStepdownStream(AccountTatami, name); err != nil {
			b.log.Debug("a stream stays with this server", "stream", name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(yieldPause):
		}
	}
}

// othersCurrent reports whether every other server knows what there is: one that does not could not take over.
func (b *Bus) othersCurrent() bool {
	z, err := b.srv.Jsz(&server.JSzOptions{})
	if err != nil || z.Meta == nil {
		return false
	}
	for _, r := range z.Meta.Replicas {
		if !r.Current || r.Offline {
			return false
		}
	}
	return len(z.Meta.Replicas) == len(b.cfg.Cluster.Peers)-1
}

// othersHave reports whether every other server that holds a stream has all of it.
func (b *Bus) othersHave(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, ledPatience)
	defer cancel()
	st, err := b.js.Stream(ctx, stream)
	if err != nil || st.CachedInfo().Cluster == nil {
		return false
	}
	for _, r := range st.CachedInfo().Cluster.Replicas {
		if !r.Current || r.Offline {
			return false
		}
	}
	return true
}

func (b *Bus) yieldStore() {
	nc, err := connectAs(b.srv, userSystem, b.pass.system, "yield", b.log)
	if err != nil {
		b.log.Debug("the store stays with this server", "err", err)
		return
	}
	defer nc.Close()
	if _, err := nc.Request(stepDown, nil, stepDownTimeout); err != nil {
		b.log.Debug("the store stays with this server", "err", err)
	}
}

// replicatedStreams lists the streams that several servers hold.
func (b *Bus) replicatedStreams() []string {
	l := layoutOf(b.cfg)
	return slices.Sorted(slices.Values(l.names()))
}
