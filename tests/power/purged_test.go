//go:build e2e

package power

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A dead letter is purged that was the only one of its block, and the power goes: it does not come back with the block's file.
func TestACutAfterALetterWasPurged(t *testing.T) {
	im := newImage(t, 256)
	log := filepath.Join(t.TempDir(), "attempts")
	b, q, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	blocks := filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamDead, "msgs")
	there := func(block string) bool {
		_, err := os.Stat(filepath.Join(blocks, block))
		return err == nil
	}
	bury := func(ref functions.Ref, size int) {
		t.Helper()
		id := functions.NewInvocationID(ref)
		subject, _ := bus.DeadSubject(id)
		data, err := json.Marshal(&functions.DeadLetter{Schema: 1, Invocation: functions.Invocation{
			Schema: 1, ID: id, Namespace: ref.Namespace, Function: ref.Name, Body: make([]byte, size),
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: subject, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	purge := func(ref functions.Ref) {
		t.Helper()
		if _, err := q.PurgeDead(t.Context(), ref, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	other := functions.Ref{Namespace: "default", Name: "other"}
	bury(hello, 10)
	for n := 0; !there("2.blk"); n++ {
		if bury(other, 100_000); n == 1000 {
			t.Fatal("the server has made no second block")
		}
	}
	bury(functions.Ref{Namespace: "default", Name: "third"}, 10)
	purge(other)
	if !there("1.blk") {
		t.Fatal("the first block is gone")
	}
	if purge(hello); there("1.blk") {
		t.Fatal("the server keeps a block that is empty")
	}
	im.crash(b)
	if b, q, err = open(t.Context(), im.dir, log); err != nil {
		t.Fatal(err)
	}
	if letters, err := q.Dead(t.Context(), hello, 10); err != nil || len(letters) > 0 {
		t.Errorf("%d letters are there, %v", len(letters), err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
