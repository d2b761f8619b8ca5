package keepalive_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"pgregory.net/rapid"
)

// restored is the rhythm as it comes out of its record in JSON.
func restored(t interface{ Fatal(...any) }, r *keepalive.Rhythm) *keepalive.Rhythm {
	before := functions.IdleTimes{Schema: 1, Namespace: "ns", Function: "fn"}
	r.Store(&before)
	data, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 1024 {
		t.Fatal("a record takes", len(data), "bytes")
	}
	var after functions.IdleTimes
	if err := json.Unmarshal(data, &after); err != nil {
		t.Fatal(err)
	}
	out, err := keepalive.Restore(&after)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestARestoredRhythmPlansTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r keepalive.Rhythm
		at := now
		r.Needed(at)
		if rapid.Bool().Draw(t, "regular") {
			every := time.Duration(rapid.Int64Range(int64(5*time.Second), int64(24*time.Hour)).Draw(t, "every"))
			for range rapid.IntRange(0, 50).Draw(t, "needs") {
				at = at.Add(every)
				r.Needed(at)
			}
		}
		for range rapid.IntRange(0, 1500).Draw(t, "chance") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "idle")))
			r.Needed(at)
		}
		again := restored(t, &r)
		if !r.Stored() || !again.Stored() || again.Last() != r.Last() || again.Busy() != r.Busy() {
			t.Fatalf("restored %s and %s, want %s and %s", again.Last(), again.Busy(), r.Last(), r.Busy())
		}
		a := ask()
		if want, got := r.Plan(a), again.Plan(a); got != want {
			t.Fatalf("the plan was %+v, and is %+v", want, got)
		}
	})
}

// What happened while nobody listened is no idle time, and the next one counts again.
func TestTheTimeAwayIsNotLearnt(t *testing.T) {
	t.Parallel()
	var r keepalive.Rhythm
	r.Needed(now)
	r.Needed(now.Add(time.Minute))
	again := restored(t, &r)
	back := now.Add(25 * time.Hour)
	if again.Needed(back) || again.Len() != 1 {
		t.Errorf("a day away was learnt: %d idle times", again.Len())
	}
	if !again.Needed(back.Add(time.Minute)) || again.Len() != 2 || again.Stored() {
		t.Errorf("the next idle time was not learnt: %d", again.Len())
	}
}

func TestWhatCannotBeIsNotRestored(t *testing.T) {
	t.Parallel()
	var r keepalive.Rhythm
	r.Needed(now)
	r.Needed(now.Add(time.Minute))
	for name, edit := range map[string]func(*functions.IdleTimes){
		"half a number":         func(t *functions.IdleTimes) { t.Counts = []byte{0x80} },
		"too many bins":         func(t *functions.IdleTimes) { t.Counts = make([]byte, 200) },
		"a count too high":      func(t *functions.IdleTimes) { t.Counts = []byte{0xff, 0xff, 0x7f} },
		"too many together":     func(t *functions.IdleTimes) { t.Counts = []byte{0x80, 4, 0x80, 4} },
		"a number that is none": func(t *functions.IdleTimes) { t.Logs = math.NaN() },
		"an endless sum":        func(t *functions.IdleTimes) { t.Logs = math.Inf(1) },
		"a sum of nothing":      func(t *functions.IdleTimes) { t.Counts = nil },
		"back in time":          func(t *functions.IdleTimes) { t.Cycle = -1 },
		"more hits than tries":  func(t *functions.IdleTimes) { t.Hits = t.Tries + 1 },
		"tries without end":     func(t *functions.IdleTimes) { t.Tries = math.Inf(1) },
		"never needed":          func(t *functions.IdleTimes) { t.Ended = time.Time{} },
		"over before begun":     func(t *functions.IdleTimes) { t.Begun = t.Ended.Add(1) },
	} {
		var rec functions.IdleTimes
		r.Store(&rec)
		edit(&rec)
		if _, err := keepalive.Restore(&rec); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte{0, 1, 2}, 3.5, int64(time.Minute), 1.0, 2.0, int64(5), int64(7))
	f.Add([]byte{0x80, 0x80}, math.NaN(), int64(-1), math.Inf(1), -1.0, int64(0), int64(-7))
	f.Fuzz(func(t *testing.T, counts []byte, logs float64, cycle int64, hits, tries float64, begun, ended int64) {
		rec := functions.IdleTimes{Counts: counts, Logs: logs, Cycle: functions.Duration(cycle), Hits: hits, Tries: tries, Begun: time.Unix(0, begun), Ended: time.Unix(0, ended)}
		r, err := keepalive.Restore(&rec)
		if err != nil {
			return
		}
		a := ask()
		p := r.Plan(a)
		if p.Keep < a.Floor || p.Keep > a.Ceiling || p.Until != 0 && p.Until <= p.From {
			t.Fatalf("%+v", p)
		}
		r.Needed(rec.Ended.Add(time.Hour))
		r.Needed(rec.Ended.Add(2 * time.Hour))
		r.Plan(a)
	})
}
