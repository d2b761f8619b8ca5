package gateway

import (
	"net/http"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

func TestWhenAnInvocationIsToStart(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		header http.Header
		want   time.Time
		field  string
	}{
		"at once":       {http.Header{}, time.Time{}, ""},
		"seconds":       {http.Header{headerDelay: {"90"}}, now.Add(90 * time.Second), ""},
		"a duration":    {http.Header{headerDelay: {"1h30m"}}, now.Add(90 * time.Minute), ""},
		"less than one": {http.Header{headerDelay: {"1.5ms"}}, now.Add(1500 * time.Microsecond), ""},
		"a time":        {http.Header{headerAt: {"2030-01-02T04:04:05.25+01:00"}}, now.Add(250 * time.Millisecond), ""},
		"before now":    {http.Header{headerDelay: {"-1s"}}, time.Time{}, headerDelay},
		"no number":     {http.Header{headerDelay: {"soon"}}, time.Time{}, headerDelay},
		"empty":         {http.Header{headerDelay: {""}}, time.Time{}, headerDelay},
		"no time":       {http.Header{headerAt: {"tomorrow"}}, time.Time{}, headerAt},
		"no zone":       {http.Header{headerAt: {"2030-01-02T04:04:05"}}, time.Time{}, headerAt},
		"both":          {http.Header{headerAt: {"2030-01-02T04:04:05Z"}, headerDelay: {"1s"}}, time.Time{}, headerDelay},
		"twice":         {http.Header{headerDelay: {"1s", "2s"}}, time.Time{}, headerDelay},
	} {
		got, err := startOf(c.header, now)
		if !got.Equal(c.want) || (err != nil) != (c.field != "") {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if err != nil && fault.From(err).Field != c.field {
			t.Errorf("%s: the error names %q", name, fault.From(err).Field)
		}
	}
}

func FuzzWhenAnInvocationIsToStart(f *testing.F) {
	for _, s := range []string{"", "1", "1h", "2030-01-02T04:04:05Z", "99999999999", "9e9h"} {
		f.Add(s, s)
	}
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, delay, at string) {
		if got, err := startOf(http.Header{headerDelay: {delay}}, now); err == nil && got.Before(now) {
			t.Errorf("a delay of %q starts before it was asked for: %v", delay, got)
		}
		if got, err := startOf(http.Header{headerAt: {at}}, now); err != nil && !got.IsZero() {
			t.Errorf("%q is refused and gives %v", at, got)
		}
	})
}
