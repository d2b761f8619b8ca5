package queue

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// What an attempt led to and could not be synced is not acknowledged: the invocation's message is there for the next start.
func TestWhatIsNotOnDiskIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		stream func(b *bus.Bus) string
	}{
		"a delivery":    {http.StatusAccepted, func(*bus.Bus) string { return bus.StreamInvocations }},
		"a result":      {http.StatusOK, func(b *bus.Bus) string { return b.Results().Stream() }},
		"a dead letter": {http.StatusBadRequest, func(*bus.Bus) string { return bus.StreamDead }},
		"a retry":       {http.StatusServiceUnavailable, func(*bus.Bus) string { return bus.StreamInvocations }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			running, answer := make(chan struct{}, 10), make(chan struct{})
			run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				running <- struct{}{}
				hold(r, answer)
				w.WriteHeader(c.status)
			}))
			run.deploy(hello, func(cfg *functions.Config) {
				if c.status == http.StatusAccepted {
					cfg.Queue.OnSuccess = functions.Destination{Subject: "done"}
				}
			})
			dir := t.TempDir()
			b, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close(context.Background()) }()
			q, err := NewOver(Config{BackoffBase: time.Hour, BackoffMax: time.Hour}, b, run, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- q.Run(context.Background()) }()
			id, err := q.Accept(t.Context(), Request{Ref: hello})
			if err != nil {
				t.Fatal(err)
			}
			receive(t, running, "the attempt begins")
			// The server holds its files open and goes on writing; what is to be synced cannot be found.
			blocks := filepath.Join(dir, "jetstream", bus.AccountTatami, "streams", c.stream(b), "msgs")
			if err := os.Rename(blocks, blocks+"-gone"); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.Rename(blocks+"-gone", blocks); err != nil {
					t.Error(err)
				}
			}()
			close(answer)
			select {
			case err := <-ended:
				wantCode(t, err, fault.CodeUnavailable)
			case <-time.After(20 * time.Second):
				t.Fatal("Run goes on without a store")
			}
			if !stillQueued(t, b, id) {
				t.Error("the message was acknowledged")
			}
		})
	}
}

// stillQueued reports whether the invocation's own message, not that of a retry, is in the stream.
func stillQueued(t *testing.T, b *bus.Bus, id functions.InvocationID) bool {
	t.Helper()
	subject, _ := bus.InvocationSubject(id)
	m, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject)
	return err == nil && m.Subject == subject
}
