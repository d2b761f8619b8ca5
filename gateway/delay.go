package gateway

import (
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Headers of a request to the queue that say when its first attempt may start: after a time, or at one.
const (
	headerDelay = "Tatami-Delay"
	headerAt    = "Tatami-At"
)

// startOf reads when the first attempt may start: zero where the request does not say.
func startOf(h http.Header, now time.Time) (time.Time, error) {
	delay, at := h.Values(headerDelay), h.Values(headerAt)
	bad := func(field, format string, args ...any) (time.Time, error) {
		return time.Time{}, fault.New(fault.CodeInvalidRequest, field+": "+format, args...).WithField(field)
	}
	switch {
	case len(delay)+len(at) == 0:
		return time.Time{}, nil
	case len(delay)+len(at) > 1:
		return bad(headerDelay, "say once when it is to start: %s or %s", headerDelay, headerAt)
	case len(at) == 1:
		t, err := time.Parse(time.RFC3339Nano, at[0])
		if err != nil {
			return bad(headerAt, "%.40q is no time like 2031-05-01T12:00:00Z", at[0])
		}
		return t, nil
	}
	d, err := durationOf(delay[0])
	if err != nil {
		return bad(headerDelay, "%.40q is no duration like 90s or 2h, nor a number of seconds", delay[0])
	}
	return now.Add(d), nil
}

// durationOf reads a duration such as 30s, or whole seconds; none below zero.
func durationOf(s string) (time.Duration, error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = strconv.ErrRange
	}
	return d, err
}
