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
