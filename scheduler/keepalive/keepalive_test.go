package keepalive_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func idle(id string, seconds int, busy bool) keepalive.Instance {
	return keepalive.Instance{ID: functions.InstanceID(id), LastUsed: now.Add(-time.Duration(seconds) * time.Second), Busy: busy}
}

func TestSurplus(t *testing.T) {
	t.Parallel()
	four := []keepalive.Instance{idle("d", 5, false), idle("a", 90, false), idle("b", 200, true), idle("c", 70, false)}
	for name, tc := range map[string]struct {
		policy keepalive.Policy
		want   []functions.InstanceID
	}{
		"none is too many":             {keepalive.Policy{Desired: 4, Peak: 4, KeepAlive: time.Minute}, nil},
		"the longest idle goes first":  {keepalive.Policy{Desired: 3, Peak: 4, KeepAlive: time.Minute}, []functions.InstanceID{"a"}},
		"all that are idle, none busy": {keepalive.Policy{Desired: 0, Peak: 4, KeepAlive: time.Minute}, []functions.InstanceID{"a", "c"}},
		"not yet idle long enough":     {keepalive.Policy{Desired: 0, Peak: 4, KeepAlive: 80 * time.Second}, []functions.InstanceID{"a"}},
		"never needed so many":         {keepalive.Policy{Desired: 1, Peak: 2, KeepAlive: time.Hour}, []functions.InstanceID{"a", "c"}},
		"the peak is below desired":    {keepalive.Policy{Desired: 3, Peak: 1, KeepAlive: time.Hour}, []functions.InstanceID{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []functions.InstanceID
			for _, c := range keepalive.Surplus(now, four, tc.policy) {
				if got = append(got, c.ID); c.Reason == "" {
					t.Errorf("%s: no reason", c.ID)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

var anyInstances = rapid.Custom(func(t *rapid.T) []keepalive.Instance {
	out := make([]keepalive.Instance, rapid.IntRange(0, 12).Draw(t, "n"))
	for i := range out {
		out[i] = idle(fmt.Sprintf("i%02d", i), rapid.IntRange(0, 300).Draw(t, "idle"), rapid.Bool().Draw(t, "busy"))
	}
	return out
})

func TestSurplusKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := anyInstances.Draw(t, "instances")
		p := keepalive.Policy{Desired: rapid.IntRange(0, 12).Draw(t, "desired"), Peak: rapid.IntRange(0, 12).Draw(t, "peak"), KeepAlive: time.Duration(rapid.IntRange(1, 200).Draw(t, "keep")) * time.Second}
		got := keepalive.Surplus(now, all, p)
		if len(got) > max(len(all)-p.Desired, 0) {
			t.Fatalf("%d of %d stopped, %d wanted", len(got), len(all), p.Desired)
		}
		for _, c := range got {
			in := all[slices.IndexFunc(all, func(i keepalive.Instance) bool { return i.ID == c.ID })]
			if in.Busy {
				t.Fatalf("%s is busy", c.ID)
			}
			if now.Sub(in.LastUsed) < p.KeepAlive && len(all)-len(got) < max(p.Peak, p.Desired) {
				t.Fatalf("%s was used %s ago", c.ID, now.Sub(in.LastUsed))
			}
		}
	})
}

func TestPeak(t *testing.T) {
	t.Parallel()
	var p keepalive.Peak
	if _, known := p.Max(now); known {
		t.Error("known without an observation")
	}
	at := now
	for i := range 90 {
		v := 2
		if i == 40 {
			v = 9
		}
		p.Observe(at, time.Minute, v)
		most, known := p.Max(at)
		switch {
		case known != (i >= 60):
			t.Fatalf("after %d s known is %t", i, known)
		case known && most != 9:
			t.Fatalf("after %d s the peak of the last minute is %d", i, most)
		}
		at = at.Add(time.Second)
	}
	at = at.Add(20 * time.Second)
	p.Observe(at, time.Minute, 1)
	if most, known := p.Max(at); !known || most != 2 {
		t.Errorf("later the peak is %d, known %t", most, known)
	}
	p.Observe(at, time.Second, 3)
	if _, known := p.Max(at); known {
		t.Error("another window is known at once")
	}
}
