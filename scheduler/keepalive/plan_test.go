package keepalive_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"pgregory.net/rapid"
)

func ask() keepalive.Ask {
	return keepalive.Ask{Price: 10, Memory: 256 * functions.MiB, Start: 500 * time.Millisecond, Floor: 10 * time.Second, Ceiling: 24 * time.Hour}
}

func TestPlanOfATimerStartsAhead(t *testing.T) {
	t.Parallel()
	for _, period := range []time.Duration{15 * time.Minute, time.Hour, 24 * time.Hour} {
		var r keepalive.Record
		for range 5 {
			r.Observe(period-3*time.Second, period)
		}
		a := ask()
		a.Busy = 3 * time.Second
		p := r.Plan(a)
		due := period - a.Busy
		if !p.Periodic || p.Keep != a.Floor || !p.Warm(due) || !p.Warm(due-time.Second) || p.Warm(due/2) || p.Warm(due+period/100+5*time.Second) {
			t.Errorf("every %s: %s (%+v)", period, p, p)
		}
		if held := p.Idle(due); held > period/50+15*time.Second {
			t.Errorf("every %s: %s are idle", period, held)
		}
		if !strings.Contains(p.String(), "regular times") {
			t.Errorf("it says %q", p)
		}
	}
}

func TestPlanKeepsWhatIsNeededOftenAndNotWhatIsNot(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	keep := func(mean time.Duration, price float64) time.Duration {
		var r keepalive.Record
		for range 400 {
			idle := time.Duration(rng.ExpFloat64() * float64(mean))
			r.Observe(idle, idle+time.Second)
		}
		a := ask()
		a.Price = price
		return r.Plan(a).Keep
	}
	if got := keep(20*time.Second, 10); got < time.Minute {
		t.Errorf("needed three times a minute, and kept for %s", got)
	}
	if got := keep(6*time.Hour, 100); got > time.Minute {
		t.Errorf("needed four times a day while memory is dear, and kept for %s", got)
	}
	if cheap, dear := keep(time.Hour, 0.5), keep(time.Hour, 100); cheap <= dear {
		t.Errorf("kept for %s where memory is cheap, %s where it is dear", cheap, dear)
	}
}

func TestPlanForgetsWhatWas(t *testing.T) {
	t.Parallel()
	var r keepalive.Record
	for range 2000 {
		r.Observe(3*time.Hour, 3*time.Hour+time.Second)
	}
	before := r.Plan(ask())
	rng := rand.New(rand.NewPCG(1, 2))
	for range 4000 {
		idle := time.Duration(rng.ExpFloat64() * float64(30*time.Second))
		r.Observe(idle, idle+time.Second)
	}
	after := r.Plan(ask())
	if !before.Periodic || after.Periodic || !after.Warm(time.Minute) {
		t.Errorf("before %s, after %s", before, after)
	}
	if r.Len() > 1024 {
		t.Errorf("it rests on %d idle times", r.Len())
	}
}

func TestRecordIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(keepalive.Record{}); size > 1024 {
		t.Errorf("a record takes %d bytes", size)
	}
	var r keepalive.Record
	if n := testing.AllocsPerRun(100, func() {
		r.Observe(time.Minute, 2*time.Minute)
		r.Plan(ask())
	}); n != 0 {
		t.Errorf("%v allocations a plan", n)
	}
}

func TestPlanKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r keepalive.Record
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			idle := time.Duration(rapid.Int64Range(-1, int64(30*24*time.Hour)).Draw(t, "idle"))
			r.Observe(idle, time.Duration(rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "cycle")))
		}
		floor := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "floor"))
		a := keepalive.Ask{
			Price: rapid.Float64Range(0, 1e4).Draw(t, "price"), Memory: rapid.Int64Range(0, 1<<40).Draw(t, "memory"),
			Start: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "start")), Floor: floor,
			Ceiling: floor + time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "more")),
			Busy:    time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "busy")),
		}
		p := r.Plan(a)
		if p.Keep < a.Floor || p.Keep > a.Ceiling {
			t.Fatalf("kept for %s, floor %s, ceiling %s", p.Keep, a.Floor, a.Ceiling)
		}
		if p.Until != 0 && (p.From <= p.Keep || p.Until <= p.From) {
			t.Fatalf("stretches out of order: %+v", p)
		}
		if again := r.Plan(a); again != p {
			t.Fatalf("%+v, then %+v", p, again)
		}
		idle := time.Duration(rapid.Int64Range(0, int64(40*24*time.Hour)).Draw(t, "age"))
		var held time.Duration
		for age := time.Duration(0); age < idle; {
			next := p.Next(age)
			if next == 0 || next > idle {
				next = idle
			}
			if p.Warm(age) {
				held += next - age
			}
			age = next
		}
		if held != p.Idle(idle) {
			t.Fatalf("%+v: warm for %s of %s, Idle says %s", p, held, idle, p.Idle(idle))
		}
	})
}

func TestMarketFindsThePrice(t *testing.T) {
	t.Parallel()
	var m keepalive.Market
	at, opening := now, m.Price()
	run := func(idle func(price float64) int64, minutes int) {
		for range minutes {
			at = at.Add(time.Minute)
			m.Adjust(at, idle(m.Price()), 1000)
		}
	}
	run(func(float64) int64 { return 0 }, 600)
	if m.Price() >= opening {
		t.Errorf("nothing is idle, and the price is %.3g", m.Price())
	}
	run(func(float64) int64 { return 5000 }, 600)
	if m.Price() <= opening {
		t.Errorf("five times the budget is idle, and the price is %.3g", m.Price())
	}
	demand := func(price float64) int64 { return int64(40_000 / price) }
	run(demand, 3000)
	if idle := demand(m.Price()); idle < 850 || idle > 1150 {
		t.Errorf("of a budget of 1000, %d are idle at the price %.3g", idle, m.Price())
	}
	stood := m.Price()
	m.Adjust(at.Add(-time.Hour), 5000, 1000)
	if m.Price() != stood {
		t.Error("a clock that goes back changes the price")
	}
}

func BenchmarkPlan(b *testing.B) {
	var r keepalive.Record
	rng := rand.New(rand.NewPCG(1, 3))
	for b.Loop() {
		idle := time.Duration(rng.ExpFloat64() * float64(time.Minute))
		r.Observe(idle, idle+time.Second)
		r.Plan(ask())
	}
}
