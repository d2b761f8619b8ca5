//go:build e2e

package power

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A call under a key is refused before it reaches its function, and the power goes. The record that says that it runs was the last one of its block, whose
// file the server removes with it: the record does not come back with that, and the call may be made.
func TestACutAfterACallThatDidNotBegin(t *testing.T) {
	im := newImage(t, 128)
	log := filepath.Join(t.TempDir(), "attempts")
	b, q, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	end := work(q)
	blocks := filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamKeys, "msgs")
	there := func(block string) bool {
		_, err := os.Stat(filepath.Join(blocks, block))
		return err == nil
	}
	refused := func(ctx context.Context, _ queue.Call) (int, http.Header, queue.Outcome) {
		// Meanwhile another record changes so often that the block has none but the call's.
		for n := 0; !there("2.blk") && n < 10_000; n++ {
			if _, err := b.Store(ctx, &nats.Msg{Subject: bus.KeySubject("changes"), Data: make([]byte, 10_000)}); err != nil {
				t.Error(err)
			}
		}
		if err := b.Barrier(ctx, bus.StreamKeys); err != nil {
			t.Error(err)
		}
		return http.StatusTooManyRequests, nil, queue.OutcomeUntouched
	}
	if _, err := q.Once(t.Context(), queue.Request{Ref: hello, Key: "key"}, refused); err != nil {
		t.Fatal(err)
	}
	if there("1.blk") {
		t.Fatal("the server keeps a block that is empty")
	}
	im.crashAtWork(b, bus.StreamKeys, end)

	if b, q, err = open(t.Context(), im.dir, log); err != nil {
		t.Fatal(err)
	}
	end = work(q)
	made := false
	_, err = q.Once(t.Context(), queue.Request{Ref: hello, Key: "key"}, func(context.Context, queue.Call) (int, http.Header, queue.Outcome) {
		made = true
		return http.StatusOK, nil, queue.OutcomeAnswered
	})
	if err != nil || !made {
		t.Errorf("the call cannot be made: %v", err)
	}
	end()
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
