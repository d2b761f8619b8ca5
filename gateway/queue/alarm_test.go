package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Alarms come out in the order of their times, each once, wherever they were put to.
func TestAlarmsComeInTheirOrder(t *testing.T) {
	t.Parallel()
	a := newAlarms()
	begin := time.Unix(1000, 0)
	want := map[functions.InvocationID]time.Time{}
	for i := range 3000 {
		id := functions.InvocationID([]byte{byte(i % 250), byte(i % 7)})
		at := begin.Add(time.Duration(rand.IntN(5000)) * time.Millisecond)
		if i%5 == 0 {
			a.unset(id)
			delete(want, id)
			continue
		}
		a.set(id, at)
		want[id] = at
	}
	var last time.Time
	for now := begin; now.Before(begin.Add(5 * time.Second)); now = now.Add(time.Millisecond) {
		due, next := a.due(now, 1024)
		if !next.IsZero() && !next.After(now) && len(due) < 1024 {
			t.Fatalf("at %s the next is due at %s", now, next)
		}
		for _, d := range due {
			id, at := d.id, want[d.id]
			if !d.at.Equal(at) || at.IsZero() || at.After(now) || at.Before(last) {
				t.Fatalf("%q is due at %s, not at %s", id, at, now)
			}
			last = at
			delete(want, id)
		}
	}
	if len(want) > 0 || len(a.byID) > 0 || len(a.heap) > 0 {
		t.Fatalf("%d were not due, %d and %d are left", len(want), len(a.byID), len(a.heap))
	}
}

// Who sets the alarm that comes first wakes whoever waits for it, and at most so many come at once.
func TestAlarmsWake(t *testing.T) {
	t.Parallel()
	a := newAlarms()
	now := time.Unix(1000, 0)
	woken := func() bool {
		select {
		case <-a.earlier:
			return true
		default:
			return false
		}
	}
	var got []bool
	for _, at := range []int{50, 60, 40} {
		a.set(functions.InvocationID([]byte{byte(at)}), now.Add(time.Duration(at)*time.Second))
		got = append(got, woken())
	}
	if !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("%v", got)
	}
	for i := range 105 {
		a.set(functions.InvocationID([]byte{1, byte(i), byte(i >> 8)}), now)
	}
	if ids, next := a.due(now, 100); len(ids) != 100 || next.After(now) {
		t.Errorf("%d, next %s", len(ids), next)
	}
	if ids, next := a.due(now, 0); len(ids) != 0 || next.After(now) {
		t.Errorf("%d, next %s", len(ids), next)
	}
	if ids, next := a.due(now, 100); len(ids) != 5 || !next.Equal(now.Add(40*time.Second)) {
		t.Errorf("%d, next %s", len(ids), next)
	}
}
