package functions

import (
	"slices"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// CronSource fires at the times of a schedule. Each firing is an event of the type "tatami.cron" whose id is its time.
type CronSource struct {
	// Schedule is a cron expression of five fields (minute, hour, day of the month, number of the month, day of the week), or of six with seconds first, or one of @hourly,
	// @daily, @weekly, @monthly and @yearly.
	Schedule string `json:"schedule"`
	// Zone is the time zone of the schedule, by its name in the IANA database. Default UTC.
	Zone string `json:"zone,omitempty"`
	// Jitter puts each firing off by a time from zero to this, which follows from trigger and time: at most 1h.
	Jitter Duration `json:"jitter,omitempty"`
	// Overlap is what happens where the invocation before has not ended: OverlapAllow, for which the empty one stands, OverlapForbid or OverlapReplace.
	Overlap string `json:"overlap,omitempty"`
	// CatchUp is what happens to firings that were missed by more than a minute, because no gateway ran: CatchUpLast, for which the empty one stands,
	// CatchUpNone or CatchUpAll.
	CatchUp string `json:"catchUp,omitempty"`
	// Data is the data of each event. Default: an object in JSON with the trigger's name and the time.
	Data string `json:"data,omitempty"`
}

// What a firing does where the invocation before has not ended.
const (
	// OverlapAllow makes another invocation.
	OverlapAllow = "allow"
	// OverlapForbid leaves the firing out.
	OverlapForbid = "forbid"
	// OverlapReplace cancels the one before and makes another.
	OverlapReplace = "replace"
)

// What becomes of firings that were missed.
const (
	// CatchUpLast makes up for the last one.
	CatchUpLast = "last"
	// CatchUpNone makes up for none.
	CatchUpNone = "none"
	// CatchUpAll makes up for each, for the last MaxCatchUp at most.
	CatchUpAll = "all"
)

const (
	// MaxCatchUp is how many missed firings are made up for at most.
	MaxCatchUp = 100
	// MaxFirings is how many firings a trigger's state remembers.
	MaxFirings = 20

	maxJitter   = time.Hour
	maxCronData = 64 << 10
)

// problem does not judge schedule and zone: gateway/trigger/cron does.
func (c *CronSource) problem() *fault.Error {
	switch {
	case c.Schedule == "" || len(c.Schedule) > 200:
		return badTrigger("cron.schedule", "it has 1 to 200 characters, such as 30 3 * * 1-5")
	case len(c.Zone) > 60:
		return badTrigger("cron.zone", "%.60q is no time zone such as Europe/Berlin", c.Zone)
	case c.Jitter < 0 || c.Jitter.Std() > maxJitter:
		return badTrigger("cron.jitter", "%s is not between 0s and %s", c.Jitter, Duration(maxJitter))
	case !slices.Contains([]string{"", OverlapAllow, OverlapForbid, OverlapReplace}, c.Overlap):
		return badTrigger("cron.overlap", "%.40q is none of %s, %s and %s", c.Overlap, OverlapAllow, OverlapForbid, OverlapReplace)
	case !slices.Contains([]string{"", CatchUpLast, CatchUpNone, CatchUpAll}, c.CatchUp):
		return badTrigger("cron.catchUp", "%.40q is none of %s, %s and %s", c.CatchUp, CatchUpLast, CatchUpNone, CatchUpAll)
	case len(c.Data) > maxCronData:
		return badTrigger("cron.data", "it has %d bytes, at most %d may be", len(c.Data), maxCronData)
	}
	return nil
}

// TriggerState is what a trigger has to remember.
type TriggerState struct {
	Schema    int    `json:"schema"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Last is the latest time of the schedule that is done with.
	Last time.Time `json:"last,omitzero"`
	// Firings are the latest ones, the newest last.
	Firings []Firing `json:"firings,omitempty"`
}

// Firing is one time of a schedule and what became of it.
type Firing struct {
	// Scheduled is the time of the schedule, Fired when something was done about it.
	Scheduled time.Time `json:"scheduled"`
	Fired     time.Time `json:"fired"`
	// Outcome is FiringFired, FiringSkipped, FiringMissed or FiringRefused; Reason says why it is not the first.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	// Invocation is what the firing became.
	Invocation InvocationID `json:"invocation,omitempty"`
}

// What becomes of a firing.
const (
	FiringFired   = "fired"
	FiringSkipped = "skipped"
	FiringMissed  = "missed"
	FiringRefused = "refused"
)

// Add notes a firing and forgets those that are too many.
func (s *TriggerState) Add(f Firing) {
	if f.Scheduled.After(s.Last) {
		s.Last = f.Scheduled
	}
	s.Firings = append(s.Firings, f)
	if n := len(s.Firings) - MaxFirings; n > 0 {
		s.Firings = slices.Clone(s.Firings[n:])
	}
}

// Invocation returns the latest invocation that a firing became; "" where none is known.
func (s *TriggerState) Invocation() InvocationID {
	for i := len(s.Firings) - 1; i >= 0; i-- {
		if id := s.Firings[i].Invocation; id != "" {
			return id
		}
	}
	return ""
}
