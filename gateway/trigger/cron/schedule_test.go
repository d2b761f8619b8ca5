package cron_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cron"
	"github.com/tatami-faas/tatami/internal/fault"
)

func parse(t testing.TB, schedule, zone string) *cron.Schedule {
	t.Helper()
	s, err := cron.Parse(&functions.CronSource{Schedule: schedule, Zone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Both changes of the clock, in three zones: one at two in the morning, one at one in UTC, and one of half an hour.
func TestClockChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, zone, schedule, from, want string }{
		{"New York forward, in the gap", "America/New_York", "30 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:30:00-04:00"},
		{"New York forward, several in the gap", "America/New_York", "*/20 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:00:00-04:00 2026-03-09T02:20:00-04:00"},
		{"New York forward, beside the gap", "America/New_York", "0 1,3 * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T01:00:00-05:00 2026-03-08T03:00:00-04:00 2026-03-09T01:00:00-04:00"},
		{"New York forward, gap and its end", "America/New_York", "0 2,3 * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T03:00:00-04:00 2026-03-09T02:00:00-04:00"},
		{"New York forward, every hour", "America/New_York", "30 * * * *", "2026-03-08T00:00:00-05:00", "2026-03-08T00:30:00-05:00 2026-03-08T01:30:00-05:00 2026-03-08T03:30:00-04:00"},
		{"New York forward, every second hour", "America/New_York", "0 */2 * * *", "2026-03-08T00:30:00-05:00", "2026-03-08T04:00:00-04:00"},
		{"New York back, fixed", "America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", "2026-11-01T01:30:00-04:00 2026-11-02T01:30:00-05:00"},
		{"New York back, midnight", "America/New_York", "@daily", "2026-10-31T12:00:00-04:00", "2026-11-01T00:00:00-04:00 2026-11-02T00:00:00-05:00"},
		{"New York back, fixed range", "America/New_York", "0 0-3 * * *", "2026-10-31T23:30:00-04:00", "2026-11-01T00:00:00-04:00 2026-11-01T01:00:00-04:00 2026-11-01T02:00:00-05:00 2026-11-01T03:00:00-05:00"},
		{"New York back, from within the second pass", "America/New_York", "45 1 * * *", "2026-11-01T01:30:00-05:00", "2026-11-02T01:45:00-05:00"},
		{"New York back, every half hour", "America/New_York", "*/30 * * * *", "2026-11-01T00:45:00-04:00", "2026-11-01T01:00:00-04:00 2026-11-01T01:30:00-04:00 2026-11-01T01:00:00-05:00 2026-11-01T01:30:00-05:00 2026-11-01T02:00:00-05:00"},
		{"Berlin forward", "Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00"},
		{"Berlin back", "Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"Berlin back, every hour", "Europe/Berlin", "0 * * * *", "2026-10-25T01:30:00+02:00", "2026-10-25T02:00:00+02:00 2026-10-25T02:00:00+01:00 2026-10-25T03:00:00+01:00"},
		{"Lord Howe forward", "Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00"},
		{"Lord Howe back", "Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00", "2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30"},
		{"Lord Howe back, every quarter", "Australia/Lord_Howe", "*/15 * * * *", "2026-04-05T01:40:00+11:00", "2026-04-05T01:45:00+11:00 2026-04-05T01:30:00+10:30 2026-04-05T01:45:00+10:30 2026-04-05T02:00:00+10:30"},
		{"Cairo forward at midnight", "Africa/Cairo", "0 0 * * *", "2026-04-23T12:00:00+02:00", "2026-04-24T01:00:00+03:00 2026-04-25T00:00:00+03:00"},
		{"no zone", "", "0 12 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T12:00:00Z 2032-02-29T12:00:00Z"},
		{"Quartz", "", "0 9 * * FRI#L", "2026-01-01T00:00:00Z", "2026-01-30T09:00:00Z"},
		{"seconds", "", "*/20 * * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:00:40Z 2026-01-01T00:01:00Z"},
		{"day of week or of month", "", "0 0 13 * FRI", "2026-02-12T00:00:00Z", "2026-02-13T00:00:00Z 2026-02-20T00:00:00Z"},
	} {
		s := parse(t, c.schedule, c.zone)
		now := at(t, c.from)
		for want := range strings.FieldsSeq(c.want) {
			if now = s.Next(now); !now.Equal(at(t, want)) {
				t.Errorf("%s: %s, want %s", c.name, now.Format(time.RFC3339), want)
				break
			}
		}
	}
}

func TestSchedulesAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schedule, zone, field string }{
		{"", "", "cron.schedule"},
		{"* * *", "", "cron.schedule"},
		{"61 * * * *", "", "cron.schedule"},
		{"@every 1h", "", "cron.schedule"},
		{"@reboot", "", "cron.schedule"},
		{"CRON_TZ=UTC * * * * *", "", "cron.schedule"},
		{"0 0 30 2 *", "", "cron.schedule"},
		{"* * * * *", "Europe/Nowhere", "cron.zone"},
		{"* * * * *", "Local", "cron.zone"},
		{"* * * * *", "../etc/passwd", "cron.zone"},
	} {
		_, err := cron.Parse(&functions.CronSource{Schedule: c.schedule, Zone: c.zone})
		if f := fault.From(err); f == nil || f.Field != c.field || f.Code != fault.CodeInvalidSpec {
			t.Errorf("%q in %q: %+v", c.schedule, c.zone, f)
		}
	}
}

// Whatever the schedule and wherever it begins: times only go forward, and looking again from just before a time finds it again.
func TestTimesGoForward(t *testing.T) {
	t.Parallel()
	zones := []string{"", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu", "Antarctica/Troll"}
	rapid.Check(t, func(t *rapid.T) {
		field := func(name string) string {
			if rapid.Bool().Draw(t, name+" fixed") {
				return rapid.StringMatching(`[0-9]`).Draw(t, name)
			}
			return rapid.SampledFrom([]string{"*", "*/2", "*/7", "1-3"}).Draw(t, name)
		}
		text := field("minute") + " " + field("hour") + " * * *"
		s, err := cron.Parse(&functions.CronSource{Schedule: text, Zone: rapid.SampledFrom(zones).Draw(t, "zone")})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "from"), 0)
		for range 60 {
			next := s.Next(now)
			if !next.After(now) || next.Sub(now) > 49*time.Hour {
				t.Fatalf("%s: %s follows %s", text, next, now)
			}
			if again := s.Next(next.Add(-1)); !again.Equal(next) {
				t.Fatalf("%s: %s, and from just before it %s", text, next, again)
			}
			now = next
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"30 3 * * 1-5", "@daily", "*/5 * * * * *", "0 0 L * *", "H * * * *", "0 0 31 2 *"} {
		f.Add(s, "Europe/Berlin")
	}
	f.Fuzz(func(t *testing.T, schedule, zone string) {
		s, err := cron.Parse(&functions.CronSource{Schedule: schedule, Zone: zone})
		if err != nil {
			if f := fault.From(err); f == nil || f.Field == "" {
				t.Fatalf("no field is named: %v", err)
			}
			return
		}
		from := time.Unix(1_790_000_000, 0)
		if next := s.Next(from); !next.IsZero() && !next.After(from) {
			t.Fatalf("%q: %s", schedule, next)
		}
	})
}
