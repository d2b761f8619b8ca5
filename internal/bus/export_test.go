package bus

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// HashOf is what the roster keeps of a secret.
func HashOf(secret string) string { return hashOf(secret) }

// Through is the bucket as seen through another client of the store.
func (o *Objects) Through(t testing.TB, js jetstream.JetStream) *Objects {
	t.Helper()
	store, err := js.ObjectStore(t.Context(), o.bucket)
	if err != nil {
		t.Fatal(err)
	}
	return &Objects{bus: o.bus, bucket: o.bucket, store: store}
}

// YieldAll has others lead what this server leads, as the server does that leads the cluster.
func (b *Bus) YieldAll(t testing.TB) {
	t.Helper()
	b.yieldAll(t.Context())
}

// LeadsStreams lists the streams that this server leads, and "" where it leads the store as a whole.
func (b *Bus) LeadsStreams() (out []string) {
	if b.srv.JetStreamIsLeader() {
		out = append(out, "")
	}
	for _, name := range b.replicatedStreams() {
		if b.srv.JetStreamIsStreamLeader(AccountTatami, name) {
			out = append(out, name)
		}
	}
	return out
}
