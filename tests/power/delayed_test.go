//go:build e2e

package power

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The time of a delayed invocation comes, and the power goes as soon as its message is stored: the message is in a block that nothing has synced, and the
// schedule was the last that an older block held, whose file the server removes with it. The invocation is there all the same.
func TestACutWhenADelayIsOver(t *testing.T) {
	im := newImage(t, 128)
	log := filepath.Join(t.TempDir(), "attempts")
	b, q, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	end := work(q)
	id, err := q.Accept(t.Context(), queue.Request{Ref: hello, Path: "/hold", NotBefore: time.Now().Add(4 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	// The block is filled and emptied again, but for the schedule; what comes lies in the next one.
	for i := range 4500 {
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: fmt.Sprintf("inv.none.%d", i), Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Invocations().Purge(t.Context(), jetstream.WithPurgeSubject("inv.none.>")); err != nil {
		t.Fatal(err)
	}
	if err := b.Barrier(t.Context(), bus.StreamInvocations); err != nil {
		t.Fatal(err)
	}
	waiting, _ := bus.InvocationSubject(id)
	for {
		_, err := b.Invocations().GetLastMsgForSubject(t.Context(), waiting)
		if err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			t.Fatal(err)
		}
	}
	// What the server has removed is gone on disk, too.
	blocks, err := os.Open(filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs"))
	if err != nil || blocks.Sync() != nil || blocks.Close() != nil {
		t.Fatalf("the directory of the blocks is not synced: %v", err)
	}
	im.crashAtWork(b, bus.StreamInvocations, end)
	s := &story{t: t, accepted: map[functions.InvocationID]string{id: "/hold"}, attempts: log}
	s.look(im)
}
