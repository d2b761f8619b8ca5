package queue

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// tombstone is how many bytes the server writes to say that a message is removed.
const tombstone = 30

// The server stores the schedule of an invocation's third attempt, and is killed before it has removed that of the second: the queue holds both. The
// third is made, and nothing of the second stays.
func TestAKillBetweenAScheduleAndTheEndOfTheOneBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().UTC()
	inv := functions.Invocation{
		Schema: functions.Schema, ID: functions.NewInvocationID(hello), Namespace: hello.Namespace, Function: hello.Name, Method: "POST", Path: "/",
		Accepted: now, Deadline: now.Add(time.Hour), NotBefore: now,
	}
	subject := mustSubject(bus.ScheduledSubject(inv.ID))
	// opened has the directory open while f runs.
	opened := func(f func(b *bus.Bus)) {
		b, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		f(b)
		if err := b.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	opened(func(b *bus.Bus) {
		q := &Queue{cfg: Config{}.withDefaults()}
		for _, inv.Attempt = range []int{2, 3} {
			m, err := q.messageOf(&inv)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Store(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	})
	// What a kill leaves: neither the last that was written, nor what a process writes at its end.
	blocks := filepath.Join(dir, "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs")
	block := filepath.Join(blocks, "1.blk")
	info, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(block, info.Size()-tombstone); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index.db", "sched.db"} {
		if err := os.Remove(filepath.Join(blocks, name)); err != nil {
			t.Fatal(err)
		}
	}
	schedules := func(b *bus.Bus) uint64 {
		info, err := b.Invocations().Info(t.Context(), jetstream.WithSubjectFilter(subject))
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Subjects[subject]
	}
	opened(func(b *bus.Bus) {
		if n := schedules(b); n != 2 {
			t.Fatalf("%d schedules are there, not both", n)
		}
	})
	var c calls
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	w := start(t, dir, run, Config{})
	if n := schedules(w.bus); n > 1 {
		t.Fatalf("%d schedules are there", n)
	}
	if st := w.ends(inv.ID); st.State != functions.StateSucceeded || c.of(inv.ID) != 1 || st.Attempts[0].Number != 3 {
		t.Errorf("%d attempts, %+v", c.of(inv.ID), st)
	}
	w.empty()
}
