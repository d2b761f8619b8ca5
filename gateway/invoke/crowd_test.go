package invoke

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// served is what became of requests in virtual time.
type served struct {
	arrived, refused int
	// took are the durations of those that were not refused, sorted; late how long the refused ones waited.
	took, late []time.Duration
}

func (s *served) p99() time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	return s.took[len(s.took)*99/100]
}

// line is a function whose calls all take as long, in virtual time.
type line struct {
	p       *pool
	service time.Duration
	now     time.Time
	running map[*instance][]time.Time
	begun   map[*waiter]time.Time
	served
}

func newLine(slotsOf, ceiling int, service time.Duration) *line {
	f := newRegistry().get(functions.Ref{Namespace: "default", Name: "hello"})
	rev := &functions.Revision{ID: "rev_a"}
	rev.Config.Concurrency, rev.Config.Scale.Max = slotsOf, ceiling
	f.route.Store(&route{serving: "rev_a", live: rev})
	l := &line{p: &f.pool, service: service, now: time.Unix(1000, 0), running: map[*instance][]time.Time{}, begun: map[*waiter]time.Time{}}
	l.p.add(&bus.Endpoint{Instance: "a", Slots: slotsOf, Revision: "rev_a"}, slots{}, l.now)
	return l
}

// collect hands what was granted or refused to its waiter.
func (l *line) collect() {
	for w, begun := range l.begun {
		select {
		case g := <-w.ready:
			delete(l.begun, w)
			if g.err != nil {
				l.refused++
				l.late = append(l.late, l.now.Sub(begun))
				continue
			}
			l.run(g.inst, begun)
		default:
		}
	}
}

func (l *line) run(i *instance, begun time.Time) {
	end := l.now.Add(l.service)
	l.running[i] = append(l.running[i], end)
	l.took = append(l.took, end.Sub(begun))
}

// tick ends what has ended by now, in the order of its beginning.
func (l *line) tick() {
	for i, ends := range l.running {
		for len(ends) > 0 && !ends[0].After(l.now) {
			ends = ends[1:]
			l.running[i] = ends
			l.p.release(i, l.now)
			l.collect()
			ends = l.running[i]
		}
	}
}

func (l *line) arrive() {
	l.arrived++
	switch g, w := l.p.acquire(Sync, 1000, l.now); {
	case w != nil:
		l.begun[w] = l.now
	case g.err != nil:
		l.refused++
		l.late = append(l.late, 0)
	default:
		l.run(g.inst, l.now)
	}
	l.collect()
}

// load sends a request every so often for a time and returns what became of them, those that still wait included.
func (l *line) load(every, during time.Duration) served {
	l.served = served{}
	const step = 100 * time.Microsecond
	due, end := l.now, l.now.Add(during)
	for l.now.Before(end) || len(l.begun) > 0 {
		l.tick()
		for l.now.Before(end) && !due.After(l.now) {
			l.arrive()
			due = due.Add(every)
		}
		l.now = l.now.Add(step)
	}
	slices.Sort(l.took)
	return l.served
}

// loop keeps so many callers calling for a time, each again as soon as it was answered.
func (l *line) loop(callers int, during time.Duration) {
	for end := l.now.Add(during); l.now.Before(end); l.now = l.now.Add(100 * time.Microsecond) {
		l.tick()
		busy := len(l.begun)
		for _, ends := range l.running {
			busy += len(ends)
		}
		for refused := l.refused; busy < callers && l.refused == refused; busy++ {
			l.arrive()
		}
	}
}

// TestCallersWhoWaitForTheirTurn: as many callers as ever are no overload, however many of them share a slot and however the calls vary.
func TestCallersWhoWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		slots, callers int
		least, most    time.Duration
	}{
		{"short calls", 4, 12, time.Millisecond, 3 * time.Millisecond},
		{"calls that vary", 4, 12, time.Millisecond, 80 * time.Millisecond},
		{"many callers", 4, 200, 5 * time.Millisecond, 50 * time.Millisecond},
		{"one slot", 1, 12, 10 * time.Millisecond, 200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			l := newLine(c.slots, 1, c.least)
			for n := range 200 {
				l.service = c.least + time.Duration(random.Int64N(int64(c.most-c.least)))
				l.loop(c.callers*(1+n%2)/2, 100*time.Millisecond)
			}
			if l.refused > 0 {
				t.Errorf("%d of %d were refused", l.refused, l.arrived)
			}
		})
	}
}

// TestALittleTooMuch: what grows too slowly to be told from chance is an overload when the list is full.
func TestALittleTooMuch(t *testing.T) {
	t.Parallel()
	l := newLine(20, 1, 50*time.Millisecond)
	if l.load(time.Second/480, 20*time.Second); l.refused == 0 {
		t.Error("none was refused though a fifth more is asked for than can be served")
	}
	over := l.load(time.Second/480, 20*time.Second)
	if p99 := over.p99(); p99 > time.Second {
		t.Errorf("p99 of the admitted is %v", p99)
	}
}

func TestOverload(t *testing.T) {
	t.Parallel()
	l := newLine(20, 1, 50*time.Millisecond)
	before := l.load(time.Second/320, 10*time.Second)
	if before.refused > 0 {
		t.Errorf("at 80 %% of what it can do %d of %d were refused", before.refused, before.arrived)
	}
	over := l.load(time.Second/2000, time.Minute)
	if got, most := len(over.took), 60*400; got < most*97/100 {
		t.Errorf("%d requests were served, of %d at most", got, most)
	}
	if over.p99() > 2*before.p99() {
		t.Errorf("p99 of the admitted is %v, and %v at 80 %%", over.p99(), before.p99())
	}
	slices.Sort(over.late)
	if late := over.late[len(over.late)*99/100]; late > 0 {
		t.Errorf("p99 of the refusals came after %v", late)
	}
	l.load(time.Second/320, 2*time.Second)
	if after := l.load(time.Second/320, 10*time.Second); after.refused > 0 || after.p99() > before.p99()*11/10 {
		t.Errorf("two seconds after the overload %d were refused and p99 was %v", after.refused, after.p99())
	}
	if l.p.crowd.shedding {
		t.Error("it still takes itself for overloaded")
	}
}

func TestBurstsMayWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		slots, ceiling int
		service        time.Duration
		burst, bursts  int
	}{
		{"short calls", 1, 1, 50 * time.Millisecond, 20, 3},
		{"long calls", 1, 1, 5 * time.Second, 10, 1},
		{"many slots", 50, 1, 100 * time.Millisecond, 900, 3},
		{"more slots may come", 1, 10, 50 * time.Millisecond, 900, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLine(c.slots, c.ceiling, c.service)
			for range c.bursts {
				// A request now and then looks at the others.
				for range c.burst {
					l.arrive()
				}
				each := c.service / time.Duration(c.slots)
				if got := l.load(4*each, 2*each*time.Duration(c.burst)); got.refused > 0 {
					t.Fatalf("%d were refused", got.refused)
				}
			}
		})
	}
}

func TestMoreSlotsMayCome(t *testing.T) {
	t.Parallel()
	l := newLine(20, 10, 50*time.Millisecond)
	l.load(time.Second/800, 2*time.Second)
	if l.refused > 0 {
		t.Errorf("%d were refused while the function could still grow", l.refused)
	}
}
