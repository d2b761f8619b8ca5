package queue

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

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

// startOver runs a queue over a store whose disk the test makes fail; it ends with what Run returns.
func startOver(t *testing.T, run *testDataPath, cfg Config) (dir string, b *bus.Bus, q *Queue, ended chan error) {
	t.Helper()
	dir = t.TempDir()
	b, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	if q, err = NewOver(cfg, b, run, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- q.Run(context.Background()) }()
	return dir, b, q, ended
}

// failDisk has every sync of queued invocations fail until the test ends: the server holds its files open and goes on writing, but what is to be synced cannot
// be found.
func failDisk(t *testing.T, dir string) {
	t.Helper()
	blocks := filepath.Join(dir, "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs")
	if err := os.Rename(blocks, blocks+"-gone"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(blocks+"-gone", blocks); err != nil {
			t.Error(err)
		}
	})
}

// What has come due keeps its schedule until its message is on disk: the server may remove a block's file before what it has stored last is there.
func TestAScheduleStaysUntilWhatItBroughtIsOnDisk(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	dir, b, q, ended := startOver(t, run, Config{Backstop: time.Hour})
	id, err := q.Accept(t.Context(), Request{Ref: hello, NotBefore: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	failDisk(t, dir)
	// Its time comes.
	subject, _ := bus.ScheduledSubject(id)
	m, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	r := &ringer{q: q, stored: make(chan *due, 1)}
	r.storing.Add(1)
	inv, _ := bus.InvocationSubject(id)
	d := &due{id: id, schedule: m.Sequence, msg: &nats.Msg{Subject: inv, Data: m.Data, Header: nats.Header{}}}
	b.StoreThen(d.msg, func(_ uint64, err error) { r.sync(context.Background(), d, err) })
	wantCode(t, receive(t, ended, "Run ends without a store"), fault.CodeUnavailable)
	if len(r.stored) > 0 {
		t.Error("the schedule is taken for done with")
	}
	if _, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject); err != nil {
		t.Errorf("the schedule is gone: %v", err)
	}
}
