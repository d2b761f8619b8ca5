package keepalive_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"pgregory.net/rapid"
)

func TestWhatIsWorthMoreStays(t *testing.T) {
	t.Parallel()
	base := keepalive.Value(5, 3, 100*time.Millisecond, 0.1)
	for name, less := range map[string]float64{
		"used less often":     keepalive.Value(5, 2, 100*time.Millisecond, 0.1),
		"faster to start":     keepalive.Value(5, 3, 50*time.Millisecond, 0.1),
		"larger":              keepalive.Value(5, 3, 100*time.Millisecond, 0.2),
		"used longer ago":     keepalive.Value(4, 3, 100*time.Millisecond, 0.1),
		"used often long ago": keepalive.Value(0, 7, 100*time.Millisecond, 0.1),
	} {
		if less >= base {
			t.Errorf("%s: worth %v, no less than %v", name, less, base)
		}
	}
	if v := keepalive.Value(0, 1, 0, 0); math.IsInf(v, 0) || v <= 0 {
		t.Errorf("of no size and never measured: %v", v)
	}
}

func worth(id string, value float64, mem int64) keepalive.Idle {
	return keepalive.Idle{ID: functions.InstanceID(id), Value: value, LastUsed: now, Resources: functions.Resources{CPU: 100, Memory: mem, Instances: 1}}
}

func TestCheapest(t *testing.T) {
	t.Parallel()
	all := []keepalive.Idle{worth("a", 1, 100), worth("b", 2, 100), worth("c", 5, 500), worth("d", 9, 600)}
	need := func(mem int64) functions.Resources { return functions.Resources{CPU: 10, Memory: mem, Instances: 1} }
	for name, tc := range map[string]struct {
		need, free functions.Resources
		want       string
		total      float64
	}{
		"the least will do":       {need(90), need(0), "a", 1},
		"two of them":             {need(200), need(0), "a b", 3},
		"with what is free":       {need(150), need(50), "a", 1},
		"what proves needless":    {need(500), need(0), "c", 5},
		"one rather than several": {need(600), need(0), "a c", 6},
		"all that are needed":     {need(1300), need(0), "a b c d", 17},
		"not even all":            {need(1301), need(0), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chosen, total := keepalive.Cheapest(all, tc.need, tc.free)
			got := ""
			for i, in := range chosen {
				if i > 0 {
					got += " "
				}
				got += string(in.ID)
			}
			if got != tc.want || total != tc.total {
				t.Errorf("%q worth %v, want %q worth %v", got, total, tc.want, tc.total)
			}
		})
	}
}

func TestCheapestKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := make([]keepalive.Idle, rapid.IntRange(0, 10).Draw(t, "n"))
		most := functions.Resources{}
		for i := range all {
			all[i] = worth(fmt.Sprintf("i%02d", i), float64(rapid.IntRange(1, 50).Draw(t, "value")), rapid.Int64Range(1, 500).Draw(t, "mem"))
			all[i].Resources.CPU = rapid.Int64Range(1, 500).Draw(t, "cpu")
			most = most.Add(all[i].Resources)
		}
		slices.SortFunc(all, keepalive.ByValue)
		before := slices.Clone(all)
		need := functions.Resources{CPU: rapid.Int64Range(1, 1500).Draw(t, "cpu"), Memory: rapid.Int64Range(1, 1500).Draw(t, "mem"), Instances: 1}
		free := functions.Resources{CPU: rapid.Int64Range(-10, 0).Draw(t, "freecpu"), Memory: rapid.Int64Range(-10, 500).Draw(t, "freemem")}
		chosen, total := keepalive.Cheapest(all, need, free)
		if diff := cmp.Diff(before, all); diff != "" {
			t.Fatalf("the list was changed:\n%s", diff)
		}
		after, sum := free, 0.0
		for _, in := range chosen {
			after, sum = after.Add(in.Resources), sum+in.Value
		}
		if need.Fits(free.Add(most)) != (len(chosen) > 0) || len(chosen) > 0 && !need.Fits(after) || sum != total {
			t.Fatalf("%d chosen worth %v (said %v) leave %s for %s", len(chosen), sum, total, after, need)
		}
		for _, in := range chosen {
			if need.Fits(after.Sub(in.Resources)) {
				t.Fatalf("%s goes needlessly", in.ID)
			}
		}
		for _, in := range all {
			if need.Fits(free.Add(in.Resources)) && in.Value < total {
				t.Fatalf("%s alone, worth %v, would do instead of %v", in.ID, in.Value, total)
			}
		}
	})
}
