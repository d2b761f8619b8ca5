package bus_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

// views are three servers that tell each other whom they hear, but for what gets lost.
type views struct {
	names []string
	of    map[string]bus.View
	lost  func(from, to string) bool
	now   time.Time
}

func newViews() *views {
	v := &views{names: []string{"a", "b", "c"}, of: map[string]bus.View{}, lost: func(string, string) bool { return false }, now: time.Now()}
	for _, n := range v.names {
		v.of[n] = bus.NewView(n)
	}
	return v
}

// pass lets time pass, in which everybody tells now and again.
func (v *views) pass(d time.Duration, each func()) {
	for over := v.now.Add(d); v.now.Before(over); {
		v.now = v.now.Add(300 * time.Millisecond)
		for _, from := range v.names {
			said := v.of[from].Own(v.now)
			for _, to := range v.names {
				if from == to || !v.lost(from, to) {
					v.of[to].Hear(v.now, said)
				}
			}
		}
		each()
	}
}

func (v *views) parted() (out []string) {
	for _, n := range v.names {
		if v.of[n].Parted() {
			out = append(out, n)
		}
	}
	return out
}

// Two servers are parted where a third one hears both, and only then: one that is dead, alone or slow parts nobody.
func TestWhoIsParted(t *testing.T) {
	t.Parallel()
	between := func(x, y string) func(from, to string) bool {
		return func(from, to string) bool { return from == x && to == y || from == y && to == x }
	}
	for _, c := range []struct {
		what string
		lost func(from, to string) bool
		want []string
	}{
		{"nothing is lost", func(string, string) bool { return false }, nil},
		{"a and b do not hear each other", between("a", "b"), []string{"a", "b"}},
		{"c is dead", func(from, to string) bool { return from == "c" || to == "c" }, nil},
		{"c hears, and is not heard by a", func(from, to string) bool { return from == "c" && to == "a" }, []string{"a"}},
		{"nobody hears anybody", func(string, string) bool { return true }, nil},
	} {
		v := newViews()
		v.pass(5*time.Second, func() {
			if p := v.parted(); p != nil {
				t.Fatalf("%s: before it %q are parted", c.what, p)
			}
		})
		v.lost = c.lost
		v.pass(20*time.Second, func() {
			for _, n := range v.parted() {
				if !slices.Contains(c.want, n) {
					t.Fatalf("%s: %s is parted for a moment", c.what, n)
				}
			}
		})
		if got := v.parted(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q are parted, want %q", c.what, got, c.want)
		}
		for _, n := range v.names {
			for _, heir := range v.names {
				if n == heir || len(c.want) != 2 {
					continue
				}
				if may := v.of[n].MayLead(heir); may != (heir == "c") {
					t.Errorf("%s: %s has %s lead what it does: %t", c.what, n, heir, may)
				}
			}
		}
		v.lost = func(string, string) bool { return false }
		v.pass(time.Second, func() {})
		if got := v.parted(); got != nil {
			t.Errorf("%s: after it %q are parted", c.what, got)
		}
	}
}

// Whoever follows what a server feeds is told when one is missed, once for each time.
func TestAServerThatIsMissedIsDoubted(t *testing.T) {
	t.Parallel()
	v, now := bus.NewView("a"), time.Unix(1000, 0)
	closed := func(doubt <-chan struct{}) bool {
		select {
		case <-doubt:
			return true
		default:
			return false
		}
	}
	for range 2 {
		v.Hear(now, bus.Sighting{Server: "b", Boot: "boot"})
		v.Hear(now, v.Own(now))
		doubt := v.Doubted()
		now = now.Add(999 * time.Millisecond)
		if v.Hear(now, v.Own(now)); closed(doubt) {
			t.Error("a server is doubted that was heard a moment ago")
		}
		now = now.Add(time.Millisecond)
		if v.Hear(now, v.Own(now)); !closed(doubt) {
			t.Error("a server that is missed is not doubted")
		}
		doubt = v.Doubted()
		now = now.Add(time.Minute)
		if v.Hear(now, v.Own(now)); closed(doubt) {
			t.Error("a server is doubted again that was missed all the time")
		}
	}
}

// A server that stood still, and comes to what it was told meanwhile only now, takes nobody for parted.
func TestWhoStoodStillIsNotParted(t *testing.T) {
	t.Parallel()
	v := newViews()
	v.pass(5*time.Second, func() {})
	v.lost = func(_, to string) bool { return to == "a" }
	v.names = []string{"b", "c"}
	v.pass(10*time.Second, func() {})
	v.of["a"].Hear(v.now, v.of["c"].Own(v.now))
	v.of["a"].Hear(v.now, v.of["b"].Own(v.now))
	v.of["a"].Hear(v.now, v.of["a"].Own(v.now))
	if v.of["a"].Parted() {
		t.Error("it is parted")
	}
}

// A server that is parted turns workers away at first, and for a moment now and again, but not for so long that one is missed that has nowhere to go.
func TestWorkersAreTurnedAwayForAMoment(t *testing.T) {
	t.Parallel()
	v := newViews()
	v.pass(5*time.Second, func() {})
	if v.of["a"].TurnsAway(v.now) {
		t.Error("it turns workers away though it hears everybody")
	}
	v.lost = func(from, to string) bool { return from != "c" && to != "c" }
	for !v.of["a"].Parted() {
		v.pass(300*time.Millisecond, func() {})
	}
	if !v.of["a"].TurnsAway(v.now) || v.of["c"].TurnsAway(v.now) {
		t.Error("the one that is parted turns nobody away, or the one that is not does")
	}
	times, run := 0, 0
	v.pass(time.Minute, func() {
		if run++; !v.of["a"].TurnsAway(v.now) {
			run = 0
		}
		if run == 1 {
			times++
		}
		if time.Duration(run)*300*time.Millisecond > 1800*time.Millisecond {
			t.Fatal("it turns workers away for long")
		}
	})
	if times < 3 {
		t.Errorf("it turned workers away %d times in a minute", times)
	}
}

// Two servers that do not hear each other have the third one lead: the cluster, the streams and the store.
func TestTheOneThatHearsAllLeads(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	terms := make(chan int, 10)
	for i, b := range c.buses {
		running.Go(func() {
			_ = b.Lead(ctx, "", func(ctx context.Context, _ uint64) error {
				terms <- i
				<-ctx.Done()
				return nil
			})
		})
	}
	next := func() int {
		t.Helper()
		select {
		case i := <-terms:
			return i
		case <-time.After(2 * time.Minute):
			t.Fatal("nobody leads")
			return 0
		}
	}
	first := next()
	name := func(i int) string { return c.buses[i%3].Identity().ServerName }
	whole := first + 2
	for _, i := range []int{first, first + 1} {
		b, now := c.buses[i%3], time.Now()
		missed := name(2*first + 1 - i)
		b.Hear(now.Add(-time.Minute), bus.Sighting{Server: missed})
		b.Hear(now, bus.Sighting{Server: name(whole), Hears: []string{name(i), missed}})
		b.Hear(now, bus.Sighting{Server: name(i), Boot: b.Boot()})
		c.buses[whole%3].Hear(now, bus.Sighting{Server: name(i), Hears: []string{name(whole)}, Parted: true})
		running.Go(func() { b.LeaveToWhole(ctx) })
	}
	// Where elections take long, one that is parted may lead for a moment, before it leaves that to the other.
	for next() != whole%3 {
	}
	insistently(t, "leading all", func() error {
		if led := c.buses[whole%3].LeadsStreams(); len(led) < 16 {
			return fmt.Errorf("it leads %q", led)
		}
		return nil
	})
	select {
	case i := <-terms:
		if i != whole%3 {
			t.Errorf("then server %d leads", i)
		}
	default:
	}
}

// A server that ends leads nothing new, and does again once it has started anew.
func TestAServerThatEndsIsNotToLead(t *testing.T) {
	t.Parallel()
	v := newViews()
	v.pass(time.Second, func() {})
	if !v.of["a"].MayLead("b") {
		t.Error("b is not to lead")
	}
	v.of["b"].Leave()
	v.pass(time.Second, func() {})
	if v.of["a"].MayLead("b") || v.of["c"].MayLead("b") || !v.of["c"].MayLead("a") {
		t.Error("b is to lead, which ends, or a is not")
	}
	v.of["b"] = bus.NewView("b")
	v.pass(time.Second, func() {})
	if !v.of["a"].MayLead("b") {
		t.Error("b is not to lead, which has started anew")
	}
}
