package queue

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestABudgetLetsAShareBeRetried(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	b := budget{share: 0.2, floor: 10, most: 100, saved: 100}
	for i := range 100 {
		if wait := b.take(now); wait > 0 {
			t.Fatalf("retry %d of what is saved waits for %s", i, wait)
		}
	}
	// A function that only fails: ten a second.
	var last time.Duration
	for range 50 {
		last = b.take(now)
	}
	if last < 4*time.Second || last > 6*time.Second {
		t.Errorf("the 50th beyond it waits for %s, want 5s", last)
	}
	now = now.Add(10 * time.Second)
	if wait := b.take(now); wait > 0 {
		t.Errorf("after ten seconds one waits for %s", wait)
	}
	// Of 1,000 first attempts a second 200 may be retried, and ten more.
	b = budget{share: 0.2, floor: 10, most: 1}
	taken := 0
	for second := range 10 {
		for i := range 1000 {
			at := now.Add(time.Duration(second)*time.Second + time.Duration(i)*time.Millisecond)
			b.first(at)
			if b.saved >= 1 {
				if b.take(at) > 0 {
					t.Fatal("it waits although there is room")
				}
				taken++
			}
		}
	}
	if taken < 2000 || taken > 2200 {
		t.Errorf("%d retries of 10,000 first attempts", taken)
	}
}

func TestAFullQueueSaysWhenItHasRoom(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	var d drain
	if got := d.wait(now, 10); got != mostWait/10 {
		t.Errorf("a queue that never got shorter: %s", got)
	}
	for i := range 500 {
		d.end(now.Add(time.Duration(i) * 10 * time.Millisecond))
	}
	now = now.Add(5 * time.Second)
	if got := d.wait(now, 1000); got < 8*time.Second || got > 13*time.Second {
		t.Errorf("1,000 at 100 a second: %s", got)
	}
	if got := d.wait(now, 1); got != leastWait {
		t.Errorf("one: %s", got)
	}
	if got := d.wait(now.Add(time.Hour), 1000); got != mostWait && got != mostWait/10 {
		t.Errorf("after it stopped: %s", got)
	}
}

// One that fails again and again costs its function an attempt and no slot: the others are done before its second attempt.
func TestAPoisonedInvocationKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poison" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	run.deploy(hello, func(c *functions.Config) { c.Concurrency = 1 })
	w := start(t, t.TempDir(), run, Config{BackoffBase: time.Hour, BackoffMax: time.Hour})
	var poison functions.InvocationID
	var others []functions.InvocationID
	for i := range 100 {
		if i == 10 {
			poison = w.accept(Request{Path: "/poison"})
			continue
		}
		others = append(others, w.accept(Request{Path: fmt.Sprint("/", i)}))
	}
	for _, id := range others {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	if st, err := w.q.Lookup(t.Context(), poison, 0); err != nil || st.State != functions.StateRetryWait || len(st.Attempts) != 1 {
		t.Errorf("%+v %v", st, err)
	}
}

func TestRetriesBeyondTheBudgetAreSpread(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 8, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{BackoffBase: time.Minute, BackoffMax: time.Minute, RetryShare: 1e-9, RetryFloor: 0.001})
	ids := make([]functions.InvocationID, 10)
	for i := range ids {
		ids[i] = w.accept(Request{})
	}
	late := 0
	for _, id := range ids {
		w.until("it waits", func() bool {
			st, err := w.q.Lookup(t.Context(), id, 0)
			return err == nil && st.State == functions.StateRetryWait
		})
		st, err := w.q.Lookup(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if st.Next.Sub(st.Attempts[0].Ended) > 2*time.Minute {
			late++
		}
	}
	// Next to none is paid for, and one in a thousand seconds is added.
	if late < len(ids) {
		t.Errorf("%d of %d retries wait for their budget", late, len(ids))
	}
	if _, err := NewOver(Config{RetryShare: -1}, w.bus, run, testLog(t)); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("a negative share: %v", err)
	}
}
