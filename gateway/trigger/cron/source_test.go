package cron_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cron"
	"github.com/tatami-faas/tatami/internal/fault"
)

// book keeps what is emitted: the same event twice is one invocation. It is the queue and the store of these tests, in memory, for time is not real here.
type book struct {
	mu        sync.Mutex
	order     []string
	times     map[string]time.Time
	ended     map[functions.InvocationID]bool
	cancelled []functions.InvocationID
	state     functions.TriggerState
	// refuse, where set, is asked before an event is taken.
	refuse func() error
}

func newBook() *book {
	return &book{times: map[string]time.Time{}, ended: map[functions.InvocationID]bool{}}
}

func (b *book) Emit(ctx context.Context, ev *functions.Event) (functions.InvocationID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(); err != nil {
			return "", err
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if _, again := b.times[ev.ID]; !again {
		b.order = append(b.order, ev.ID)
		b.times[ev.ID] = time.Now()
	}
	return functions.InvocationID("inv_" + ev.ID), nil
}

func (b *book) Ended(_ context.Context, id functions.InvocationID) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended[id], nil
}

func (b *book) Cancel(_ context.Context, id functions.InvocationID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancelled = append(b.cancelled, id)
	return nil
}

func (b *book) Load(context.Context) (functions.TriggerState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, nil
}

func (b *book) Save(_ context.Context, s functions.TriggerState) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Firings = slices.Clone(s.Firings)
	b.state = s
	return nil
}

// fired lists what was emitted, by time of the schedule.
func (b *book) fired() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.order, " ")
}

func (b *book) outcomes() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, f := range b.state.Firings {
		out = append(out, f.Outcome)
	}
	return strings.Join(out, " ")
}

func trigger(src functions.CronSource) functions.Trigger {
	return functions.Trigger{Namespace: "default", Name: "nightly", Function: "f", Cron: &src, Updated: time.Now()}
}

// run lets a source run until the returned function is called.
func run(t *testing.T, tr functions.Trigger, b *book) func() {
	t.Helper()
	s, err := cron.New(tr, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// until sleeps until a time; in a bubble that takes none.
func until(t *testing.T, s string) {
	t.Helper()
	time.Sleep(time.Until(at(t, s)))
	synctest.Wait()
}

// Through both changes of the clock of a year, in three zones, each night fires once, by two firers at the same time: no gateway knows of the other.
func TestAYearOfNights(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, schedule, from, to string }{
		{"America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-10T12:00:00-04:00"},
		{"America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", "2026-11-03T12:00:00-05:00"},
		{"Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-31T12:00:00+02:00"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-27T12:00:00+01:00"},
		{"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-06T12:00:00+11:00"},
		{"Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00", "2026-04-07T12:00:00+10:30"},
	} {
		t.Run(c.zone+" "+c.from[:10], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				until(t, c.from)
				b := newBook()
				tr := trigger(functions.CronSource{Schedule: c.schedule, Zone: c.zone})
				stop, stopOther := run(t, tr, b), run(t, tr, b)
				until(t, c.to)
				stop()
				stopOther()
				zone, err := time.LoadLocation(c.zone)
				if err != nil {
					t.Fatal(err)
				}
				days := map[string]int{}
				for id, when := range b.times {
					scheduled := at(t, id)
					days[scheduled.In(zone).Format(time.DateOnly)]++
					if !when.Equal(scheduled) {
						t.Errorf("%s fired at %s", id, when)
					}
				}
				if len(days) != 3 || len(b.times) != 3 {
					t.Errorf("%v", days)
				}
			})
		})
	}
}

func TestMissedFirings(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]struct{ fired, outcomes string }{
		"":                    {"2000-01-01T05:00:00Z 2000-01-01T06:00:00Z", "missed missed missed missed fired fired"},
		functions.CatchUpLast: {"2000-01-01T05:00:00Z 2000-01-01T06:00:00Z", "missed missed missed missed fired fired"},
		functions.CatchUpNone: {"2000-01-01T06:00:00Z", "missed missed missed missed missed fired"},
		functions.CatchUpAll:  {"2000-01-01T01:00:00Z 2000-01-01T02:00:00Z 2000-01-01T03:00:00Z 2000-01-01T04:00:00Z 2000-01-01T05:00:00Z 2000-01-01T06:00:00Z", "fired fired fired fired fired fired"},
	} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook()
				tr := trigger(functions.CronSource{Schedule: "0 * * * *", CatchUp: policy})
				// No gateway runs for five hours and a half.
				until(t, "2000-01-01T05:30:00Z")
				stop := run(t, tr, b)
				until(t, "2000-01-01T06:00:01Z")
				stop()
				if got := b.fired(); got != want.fired {
					t.Errorf("fired %s, want %s", got, want.fired)
				}
				if got := b.outcomes(); got != want.outcomes {
					t.Errorf("%s, want %s", got, want.outcomes)
				}
				// What is done with is not done again after a restart.
				stop = run(t, tr, b)
				until(t, "2000-01-01T06:10:00Z")
				stop()
				if got := b.fired(); got != want.fired {
					t.Errorf("after a restart: %s", got)
				}
			})
		})
	}
}

func TestTooManyMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		tr := trigger(functions.CronSource{Schedule: "* * * * *", CatchUp: functions.CatchUpAll})
		until(t, "2000-01-03T00:00:30Z")
		defer run(t, tr, b)()
		synctest.Wait()
		if len(b.order) != functions.MaxCatchUp || b.order[functions.MaxCatchUp-1] != "2000-01-03T00:00:00Z" || len(b.state.Firings) != functions.MaxFirings {
			t.Errorf("%d made up for, until %s; %d remembered", len(b.order), b.order[len(b.order)-1], len(b.state.Firings))
		}
	})
}

// Years of seconds are not looked at one by one.
func TestVeryManyMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		tr := trigger(functions.CronSource{Schedule: "* * * * * *"})
		until(t, "2010-01-01T00:00:00Z")
		defer run(t, tr, b)()
		synctest.Wait()
		// Those of the last minute are not late.
		if got := b.order[len(b.order)-1]; got != "2010-01-01T00:00:00Z" || len(b.order) > 62 {
			t.Errorf("%d, until %s", len(b.order), got)
		}
	})
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		"": "fired fired fired", functions.OverlapAllow: "fired fired fired", functions.OverlapForbid: "fired skipped fired", functions.OverlapReplace: "fired fired fired",
	} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook()
				stop := run(t, trigger(functions.CronSource{Schedule: "0 * * * *", Overlap: policy}), b)
				until(t, "2000-01-01T02:30:00Z")
				b.mu.Lock()
				for id := range b.times {
					b.ended[functions.InvocationID("inv_"+id)] = true
				}
				b.mu.Unlock()
				until(t, "2000-01-01T03:30:00Z")
				stop()
				if got := b.outcomes(); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				replaced := policy == functions.OverlapReplace
				if replaced != (len(b.cancelled) == 1) || replaced && b.cancelled[0] != "inv_2000-01-01T01:00:00Z" {
					t.Errorf("cancelled: %v", b.cancelled)
				}
			})
		})
	}
}

// Every gateway puts a firing off by the same time, within the bound, and not every firing by the same.
func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := trigger(functions.CronSource{Schedule: "0 * * * *", Jitter: functions.Duration(10 * time.Minute)})
		one, two := newBook(), newBook()
		stop, stopTwo := run(t, tr, one), run(t, tr, two)
		until(t, "2000-01-02T00:30:00Z")
		stop()
		stopTwo()
		offs := map[time.Duration]bool{}
		for id, when := range one.times {
			off := when.Sub(at(t, id))
			offs[off] = true
			if off < 0 || off >= 10*time.Minute || !when.Equal(two.times[id]) {
				t.Errorf("%s fired at %s and %s", id, when, two.times[id])
			}
		}
		if len(one.times) != 24 || len(offs) < 12 {
			t.Errorf("%d firings, %d different times", len(one.times), len(offs))
		}
	})
}

// A firing that is being handed over when its source is stopped ends first, and is remembered: what it started may still run.
func TestStopDuringAFiring(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		begun, taken := make(chan struct{}), make(chan struct{})
		b.refuse = func() error {
			close(begun)
			<-taken
			return nil
		}
		stop := run(t, trigger(functions.CronSource{Schedule: "0 * * * *"}), b)
		<-begun
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop()
		}()
		synctest.Wait()
		close(taken)
		<-stopped
		if got := b.outcomes(); got != functions.FiringFired || b.state.Firings[0].Invocation == "" {
			t.Errorf("the history has %q", got)
		}
	})
}

// A firing that the queue does not take now is tried again; one that it never will is not.
func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		full := 3
		b.refuse = func() error {
			if full--; full >= 0 {
				return fault.New(fault.CodeQueueFull, "full")
			}
			return nil
		}
		stop := run(t, trigger(functions.CronSource{Schedule: "0 * * * *"}), b)
		until(t, "2000-01-01T01:30:00Z")
		if got := b.fired(); got != "2000-01-01T01:00:00Z" || !b.times[got].Equal(at(t, "2000-01-01T01:00:07Z")) {
			t.Errorf("%s at %s", got, b.times[got])
		}
		b.mu.Lock()
		b.refuse = func() error { return fault.New(fault.CodeFunctionNotFound, "gone") }
		b.mu.Unlock()
		until(t, "2000-01-01T02:30:00Z")
		stop()
		if got := b.outcomes(); got != "fired refused" || b.state.Firings[1].Reason != "gone" {
			t.Errorf("%s: %+v", got, b.state.Firings)
		}
	})
}

func TestEventOfAFiring(t *testing.T) {
	t.Parallel()
	tr := functions.Trigger{Namespace: "ns", Name: "n", Function: "f", Cron: &functions.CronSource{Schedule: "@daily"}}
	when := at(t, "2026-01-02T03:00:00+01:00")
	for data, want := range map[string][2]string{
		"":         {"application/json", `{"scheduled":"2026-01-02T03:00:00+01:00","trigger":"n"}`},
		`{"a": 1}`: {"application/json", `{"a": 1}`},
		"text":     {"text/plain; charset=utf-8", "text"},
	} {
		tr.Cron.Data = data
		ev := cron.Event(&tr, when)
		if err := ev.Validate(); err != nil {
			t.Error(err)
		}
		got := fmt.Sprintf("%s %s %s %s", ev.ID, ev.Source, ev.DataContentType, ev.Data)
		if got != "2026-01-02T02:00:00Z /tatami/triggers/ns/n "+want[0]+" "+want[1] {
			t.Error(got)
		}
	}
}
