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
	return keepalive.Instance{ID: functions.InstanceID(id), LastUsed: now.Add(-time.Duration(seconds) * time.Second), Busy: busy, Resources: functions.Resources{CPU: 100, Memory: 100, Instances: 1}}
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

func TestEvict(t *testing.T) {
	t.Parallel()
	big := idle("big", 10, false)
	big.Resources.Memory = 500
	floor := idle("floor", 900, false)
	floor.Floor = true
	all := []keepalive.Instance{idle("young", 5, false), idle("old", 60, false), big, floor, idle("busy", 800, true)}
	need := func(mem int64) functions.Resources { return functions.Resources{CPU: 10, Memory: mem, Instances: 1} }
	for name, tc := range map[string]struct {
		need, free functions.Resources
		want       []functions.InstanceID
	}{
		"it fits already":      {need(50), need(50), nil},
		"the oldest will do":   {need(90), need(0), []functions.InstanceID{"old"}},
		"what proves needless": {need(500), need(0), []functions.InstanceID{"big"}},
		"all of them":          {need(700), need(0), []functions.InstanceID{"old", "big", "young"}},
		"not even all":         {need(701), need(0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, keepalive.Evict(all, tc.need, tc.free)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

var anyInstances = rapid.Custom(func(t *rapid.T) []keepalive.Instance {
	out := make([]keepalive.Instance, rapid.IntRange(0, 12).Draw(t, "n"))
	for i := range out {
		out[i] = idle(fmt.Sprintf("i%02d", i), rapid.IntRange(0, 300).Draw(t, "idle"), rapid.Bool().Draw(t, "busy"))
		out[i].Floor = rapid.Bool().Draw(t, "floor")
		out[i].Resources = functions.Resources{CPU: rapid.Int64Range(1, 500).Draw(t, "cpu"), Memory: rapid.Int64Range(1, 500).Draw(t, "mem"), Instances: 1}
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

func TestEvictKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := anyInstances.Draw(t, "instances")
		need := functions.Resources{CPU: rapid.Int64Range(1, 1500).Draw(t, "cpu"), Memory: rapid.Int64Range(1, 1500).Draw(t, "mem"), Instances: 1}
		free := functions.Resources{CPU: rapid.Int64Range(-10, 500).Draw(t, "freecpu"), Memory: rapid.Int64Range(-10, 500).Draw(t, "freemem"), Instances: rapid.Int64Range(0, 1).Draw(t, "freeinst")}
		got := keepalive.Evict(all, need, free)
		most, after := free, free
		for _, in := range all {
			if in.Busy || in.Floor {
				if slices.Contains(got, in.ID) {
					t.Fatalf("%s must not go", in.ID)
				}
				continue
			}
			most = most.Add(in.Resources)
			if slices.Contains(got, in.ID) {
				after = after.Add(in.Resources)
			}
		}
		if need.Fits(most) && !need.Fits(after) {
			t.Fatalf("it could fit: %v stopped, %s free, %s needed", got, after, need)
		}
		for _, id := range got {
			in := all[slices.IndexFunc(all, func(i keepalive.Instance) bool { return i.ID == id })]
			if need.Fits(after.Sub(in.Resources)) {
				t.Fatalf("%s goes needlessly", id)
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
