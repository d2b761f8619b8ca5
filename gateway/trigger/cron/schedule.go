package cron

import (
	"strings"
	"time"

	cron "github.com/netresearch/go-cron"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Schedule tells the times of a cron expression in a time zone.
type Schedule struct {
	zone *time.Location
	// civil finds times on a clock that is never changed.
	civil *cron.SpecSchedule
	// hourly says that the schedule is about every hour rather than fixed ones.
	hourly bool
}

// Parse reads a source's schedule and zone: five fields, or six with seconds first, or @hourly and its kin.
func Parse(src *functions.CronSource) (*Schedule, error) {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.CodeInvalidSpec, "cron."+field+": "+format, args...).WithField("cron." + field)
	}
	zone, err := loadZone(src.Zone)
	if err != nil {
		return nil, bad("zone", "%.60q is no time zone such as Europe/Berlin", src.Zone)
	}
	text := strings.TrimSpace(src.Schedule)
	if strings.Contains(text, "TZ=") {
		return nil, bad("schedule", "the time zone has a field of its own, cron.zone")
	}
	p, err := cron.TryNewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.Extended | cron.DowOrDom)
	if err != nil {
		return nil, err
	}
	parsed, err := p.Parse(text)
	if err != nil {
		return nil, bad("schedule", "%.80q is no schedule such as 30 3 * * 1-5: %v", text, err)
	}
	civil, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, bad("schedule", "%.80q has no fixed times; write */5 * * * * for every five minutes", text)
	}
	civil.Location = time.UTC
	s := &Schedule{zone: zone, civil: civil, hourly: isHourly(text)}
	if s.Next(time.Unix(0, 0)).IsZero() && s.Next(time.Now()).IsZero() {
		return nil, bad("schedule", "%.80q never comes", text)
	}
	return s, nil
}

// isHourly reports whether the hours of an expression that can be read begin with '*'.
func isHourly(text string) bool {
	fields := strings.Fields(text)
	if len(fields) == 1 {
		return strings.EqualFold(fields[0], "@hourly")
	}
	// Five fields, or six with the seconds first.
	return strings.HasPrefix(fields[len(fields)-4], "*")
}

// loadZone finds a zone by its name in the IANA database; the machine's own zone is none.
func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" {
		return nil, errLocal
	}
	return time.LoadLocation(name)
}

var errLocal = fault.New(fault.CodeInvalidSpec, "the machine's own zone is not the same on every machine")

// maxPeriods bounds how many changes of the clock are looked beyond.
const maxPeriods = 64

// Next returns the first time after t; zero where there is none in the next years.
func (s *Schedule) Next(t time.Time) time.Time {
	p := periodAt(t.In(s.zone))
	after := p.wall(t)
	if floor, twice := p.repeated(); twice && !s.hourly && after.Before(floor) {
		after = floor.Add(-1)
	}
	for range maxPeriods {
		civil := s.civil.Next(after)
		if civil.IsZero() {
			return time.Time{}
		}
		if at := p.instant(civil); p.end.IsZero() || at.Before(p.end) {
			return at.In(s.zone)
		}
		next := periodAt(p.end)
		first := next.wall(p.end)
		if !s.hourly && civil.Before(first) {
			// It lies in what is left out by the change.
			return p.end.In(s.zone)
		}
		if floor, twice := next.repeated(); twice && !s.hourly {
			first = floor
		}
		p, after = next, first.Add(-1)
	}
	return time.Time{}
}

// period is a time in which a zone's clocks are not changed: from start until before end, either of which may be zero.
type period struct {
	start, end time.Time
	offset     time.Duration
}

func periodAt(t time.Time) period {
	start, end := t.ZoneBounds()
	return period{start, end, offsetAt(t)}
}

func offsetAt(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// wall is what the clocks show at t, as if in UTC.
func (p period) wall(t time.Time) time.Time { return t.UTC().Add(p.offset) }

// instant is when the clocks show civil.
func (p period) instant(civil time.Time) time.Time { return civil.Add(-p.offset) }

// repeated is until when the clocks show, from the period's start on, what they had shown before; false where they do not.
func (p period) repeated() (time.Time, bool) {
	if p.start.IsZero() {
		return time.Time{}, false
	}
	before := offsetAt(p.start.Add(-1))
	return p.start.UTC().Add(before), before > p.offset
}
