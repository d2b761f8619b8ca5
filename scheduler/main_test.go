package scheduler_test

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func request[T any](t *testing.T, b *bus.Bus, m *nats.Msg) T {
	t.Helper()
	reply, err := b.Conn().RequestMsg(m, patience)
	if err != nil {
		t.Fatal(err)
	}
	v, err := bus.Decode[T](reply.Data)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
