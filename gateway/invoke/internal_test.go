package invoke

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The heap always offers an instance with a free slot, if there is one, with the fewest slots held, and of those the one used last.
func TestHeap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h instHeap
		var all []*instance
		uses := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				i := &instance{heapAt: -1, ep: &bus.Endpoint{Slots: rapid.IntRange(1, 5).Draw(t, "slots")}}
				all = append(all, i)
				h.push(i)
				h.push(i)
			},
			"remove": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("none")
				}
				at := rapid.IntRange(0, len(all)-1).Draw(t, "at")
				h.remove(all[at])
				h.remove(all[at])
				all = slices.Delete(all, at, at+1)
			},
			"change": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("none")
				}
				i := all[rapid.IntRange(0, len(all)-1).Draw(t, "at")]
				i.held = rapid.IntRange(0, 5).Draw(t, "held")
				uses++
				i.used = uses
				h.fix(i)
			},
			"": func(t *rapid.T) {
				if len(h) != len(all) {
					t.Fatalf("%d in the heap, %d were put in", len(h), len(all))
				}
				for at, i := range h {
					if i.heapAt != at {
						t.Fatalf("the instance at %d believes to be at %d", at, i.heapAt)
					}
				}
				for _, i := range all {
					first := h[0]
					if i.full() != first.full() && !i.full() || i.full() == first.full() && (i.held < first.held || i.held == first.held && i.used > first.used) {
						t.Fatalf("%d held at %d comes before %d held at %d", first.held, first.used, i.held, i.used)
					}
				}
			},
		})
	})
}

type slots struct{ Workers }

// Whatever happens to a pool: no slot is free while somebody waits, none is given twice, none is lost.
func TestPool(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	rapid.Check(t, func(t *rapid.T) {
		f := newRegistry().get(ref)
		p := &f.pool
		revs := []*functions.Revision{{ID: "rev_a"}, {ID: "rev_b"}}
		f.route.Store(&route{serving: "rev_a", live: revs[0]})
		now := time.Unix(1000, 0)
		var waiting []*waiter
		var held []*instance
		ids := []functions.InstanceID{"a", "b", "c", "d"}
		collect := func() {
			waiting = slices.DeleteFunc(waiting, func(w *waiter) bool {
				select {
				case g := <-w.ready:
					if g.err == nil {
						held = append(held, g.inst)
					}
					return true
				default:
					return false
				}
			})
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				class := Class(rapid.IntRange(0, 1).Draw(t, "class"))
				g, w := p.acquire(class, 5, now)
				switch {
				case w != nil:
					waiting = append(waiting, w)
				case g.err == nil:
					held = append(held, g.inst)
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("none held")
				}
				at := rapid.IntRange(0, len(held)-1).Draw(t, "at")
				i := held[at]
				held = slices.Delete(held, at, at+1)
				p.release(i, now)
			},
			"leave": func(t *rapid.T) {
				if len(waiting) == 0 {
					t.Skip("nobody waits")
				}
				at := rapid.IntRange(0, len(waiting)-1).Draw(t, "at")
				w := waiting[at]
				waiting = slices.Delete(waiting, at, at+1)
				if g, granted := p.leave(w, now); granted && g.inst != nil {
					p.release(g.inst, now)
				}
			},
			"add": func(t *rapid.T) {
				ep := &bus.Endpoint{
					Instance: rapid.SampledFrom(ids).Draw(t, "id"), Slots: rapid.IntRange(1, 3).Draw(t, "slots"),
					Revision: rapid.SampledFrom(revs).Draw(t, "rev").ID,
				}
				p.mu.Lock()
				if i := p.insts[ep.Instance]; i != nil {
					ep.Revision = i.ep.Revision
				}
				p.mu.Unlock()
				p.add(ep, slots{}, now)
			},
			"remove": func(t *rapid.T) { p.remove(rapid.SampledFrom(ids).Draw(t, "id")) },
			"reroute": func(t *rapid.T) {
				rev := rapid.SampledFrom(revs).Draw(t, "rev")
				f.route.Store(&route{serving: rev.ID, live: rev})
				p.reroute(now)
			},
			"fail": func(t *rapid.T) {
				p.startFailed(&bus.StartFailure{Revision: rapid.SampledFrom(revs).Draw(t, "rev").ID}, "x", now)
			},
			"": func(t *rapid.T) {
				collect()
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.inFlight != len(held) || p.sync.n+p.async.n != len(waiting) {
					t.Fatalf("%d in flight for %d held, %d+%d in the lists for %d waiting", p.inFlight, len(held), p.sync.n, p.async.n, len(waiting))
				}
				count := map[*instance]int{}
				for _, i := range held {
					count[i]++
				}
				free := 0
				for _, i := range p.insts {
					if i.held != count[i] {
						t.Fatalf("an instance counts %d held slots, %d are", i.held, count[i])
					}
					if i.ep.Revision == p.live.ID {
						free += max(0, i.ep.Slots-i.held)
						if i.heapAt < 0 {
							t.Fatal("a live instance is not offered")
						}
					} else if i.heapAt >= 0 {
						t.Fatal("an instance of another revision is offered")
					}
				}
				if free > 0 && len(waiting) > 0 {
					t.Fatalf("%d slots are free and %d wait", free, len(waiting))
				}
			},
		})
	})
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	m.set(2, at(0))
	m.set(4, at(500))
	m.set(0, at(400)) // the clock was read before the lock was taken
	if got := m.take(at(1000)); got != 1 {
		t.Errorf("mean %v, want 1", got)
	}
	m.set(3, at(1500))
	if got := m.take(at(2000)); got != 1.5 {
		t.Errorf("mean %v, want 1.5", got)
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	for us := int64(0); us < 1<<33; us = us*9/8 + 1 {
		d := time.Duration(us) * time.Microsecond
		b := bucketOf(d)
		if b < 0 || b >= buckets {
			t.Fatalf("%s is in bucket %d of %d", d, b, buckets)
		}
		if us < 1<<32 {
			if mid := middleOf(b); max(mid-d, d-mid) > d/16+time.Microsecond {
				t.Fatalf("%s counts as %s", d, mid)
			}
		}
	}
}

func TestStatsWindow(t *testing.T) {
	t.Parallel()
	var s stats
	base := time.Unix(1_000_000, 0)
	for i := range 100 {
		s.record(base.Add(time.Duration(i)*100*time.Millisecond), time.Duration(i+1)*time.Millisecond, outcome{status: 200})
	}
	var out FunctionStats
	near := func(got functions.Duration, want time.Duration) bool {
		return got.Std() > want*9/10 && got.Std() < want*11/10
	}
	s.read(base.Add(10*time.Second), false, &out)
	if !near(out.P50, 50*time.Millisecond) || !near(out.P99, 99*time.Millisecond) || out.RPS < 9 || out.RPS > 11 {
		t.Errorf("%+v", out)
	}
	// 50 s later they are in the minute, 80 s later none is; the totals stay.
	s.record(base.Add(55*time.Second), time.Second, outcome{err: errGone})
	s.read(base.Add(59*time.Second), false, &out)
	if !near(out.P50, 50*time.Millisecond) || out.RPS < 1.5 || out.RPS > 2 {
		t.Errorf("%+v", out)
	}
	out = FunctionStats{}
	s.read(base.Add(130*time.Second), false, &out)
	if out.P50 != 0 || out.RPS != 0 || out.Requests != 101 || out.Codes["200"] != 100 || out.Codes["client-gone"] != 1 || out.Errors != 0 {
		t.Errorf("%+v", out)
	}
	for _, sl := range s.slices {
		if sl != nil {
			t.Error("a slice that has passed is kept")
		}
	}
}

// Each status is counted, the one that came first too.
func TestStatsCountStatuses(t *testing.T) {
	t.Parallel()
	var s stats
	for i, status := range []int{404, 200, 404, 503, 200, 404} {
		s.record(time.Unix(1_000_000+int64(i), 0), time.Second, outcome{status: status})
	}
	var out FunctionStats
	s.read(time.Unix(1_000_010, 0), true, &out)
	if want := map[string]uint64{"200": 2, "404": 3, "503": 1}; !maps.Equal(out.Codes, want) || out.Requests != 6 || out.Errors != 1 {
		t.Errorf("%+v, want %v", out, want)
	}
}

// Few durations are held one by one, many are counted: the figures are the same at the step from one to the other.
func TestStatsOfFewCalls(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	for calls := 1; calls <= 2*fewCalls; calls++ {
		var s stats
		for i := range calls {
			s.record(now, time.Duration(i+1)*time.Second, outcome{status: 200})
		}
		var out FunctionStats
		s.read(now, false, &out)
		for _, q := range []struct {
			got     functions.Duration
			percent int
		}{{out.P50, 50}, {out.P99, 99}} {
			want := middleOf(bucketOf(time.Duration((calls*q.percent+99)/100) * time.Second))
			if q.got.Std() != want {
				t.Errorf("%d calls: %d%% took %s, want %s", calls, q.percent, q.got, want)
			}
		}
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	good := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for v, want := range map[string]bool{
		good: true, "cc" + good[2:] + "-future": true, "": false, good + "-x": false, good[:54]: false, "ff" + good[2:]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false, "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false, "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
	} {
		if validTraceparent([]string{v}) != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
	if made := newTraceparent(); !validTraceparent([]string{made}) || made == newTraceparent() {
		t.Errorf("made %q", made)
	}
}

func TestInvocationID(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	f := newRegistry().get(ref)
	seen := map[string]bool{}
	for range 1000 {
		id := f.invocationID()
		if h, ok := functions.InvocationID(id).FunctionHash(); !ok || h != ref.Hash() || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

func TestForwardedElement(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"1.2.3.4:5": `for=1.2.3.4;host="h:1";proto=http`, "[2001:db8::1]:5": `for="[2001:db8::1]";host="h:1";proto=http`,
		"[fe80::1%eth0]:5": `for="[fe80::1]";host="h:1";proto=http`, "@": `for=unknown;host="h:1";proto=http`,
	} {
		f := forwardingOf(&http.Request{RemoteAddr: addr, Host: "h:1"})
		if got := string(f.appendElement(nil)); got != want {
			t.Errorf("%s gives %s", addr, got)
		}
	}
}

// The accounts are exact under any interleaving, the namespaces' and the total one, and wake who waits.
func TestNamespace(t *testing.T) {
	t.Parallel()
	reg := newRegistry()
	reg.setQuota("a", functions.Quota{Concurrent: 3})
	reg.setQuota(functions.QuotaTotal, functions.Quota{Concurrent: 4})
	const tries = 200
	done := make(chan [2]int64, 2*tries)
	for _, name := range []string{"a", "b"} {
		n := reg.get(functions.Ref{Namespace: name, Name: "f"}).ns
		for range tries {
			go func() {
				if err := n.enterWait(t.Context()); err != nil {
					t.Error(err)
				}
				v := [2]int64{n.inFlight.Load(), n.total.inFlight.Load()}
				if name == "b" {
					v[0] = 0
				}
				n.leave()
				done <- v
			}()
		}
	}
	for range 2 * tries {
		select {
		case v := <-done:
			if v[0] > 3 || v[1] > 4 {
				t.Errorf("%d of the namespace's and %d of all are in flight", v[0], v[1])
			}
		case <-time.After(10 * time.Second):
			t.Fatal("somebody was not woken")
		}
	}
	if n := reg.total.inFlight.Load(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// A namespace has its own bounds and the defaults' for the rest, as soon as either changes; the total bounds all together.
func TestQuotaDefaults(t *testing.T) {
	t.Parallel()
	reg := newRegistry()
	a := reg.get(functions.Ref{Namespace: "a", Name: "f"}).ns
	limits := func(n *namespace, concurrent, perSecond int64) {
		t.Helper()
		var r int64
		if l := n.limiter.Load(); l != nil {
			r = int64(l.Limit())
		}
		if n.limit.Load() != concurrent || r != perSecond {
			t.Errorf("%s may have %d in flight and begin %d a second, want %d and %d", n.name, n.limit.Load(), r, concurrent, perSecond)
		}
	}
	limits(a, 0, 0)
	reg.setQuota(functions.QuotaDefaults, functions.Quota{Concurrent: 5, Rate: 7})
	limits(a, 5, 7)
	limits(reg.get(functions.Ref{Namespace: "later", Name: "f"}).ns, 5, 7)
	reg.setQuota("a", functions.Quota{Concurrent: 2, Rate: functions.Unbounded})
	limits(a, 2, 0)
	reg.setQuota(functions.QuotaDefaults, functions.Quota{Concurrent: 9})
	limits(a, 2, 0)
	reg.setQuota("a", functions.Quota{})
	limits(a, 9, 0)

	now := time.Unix(1000, 0)
	b := reg.get(functions.Ref{Namespace: "b", Name: "f"}).ns
	reg.setQuota("a", functions.Quota{Rate: 1})
	reg.setQuota(functions.QuotaTotal, functions.Quota{Rate: 3, Concurrent: 1})
	for range 3 {
		if err := b.allow(now); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.allow(now); err == nil || !strings.Contains(err.Error(), "all namespaces together") {
		t.Errorf("beyond the total rate: %v", err)
	}
	// What the total refused is still the namespace's to use.
	now = now.Add(time.Second / 2)
	if err := a.allow(now); err != nil {
		t.Error(err)
	}
	if err := a.allow(now); err == nil || !strings.Contains(err.Error(), "namespace a") {
		t.Errorf("beyond its own rate: %v", err)
	}
	if b.enter() != nil {
		t.Fatal("no room at all")
	}
	full := a.enter()
	if full != &reg.total || a.inFlight.Load() != 0 {
		t.Errorf("the total is full, and %d of a's are in flight", a.inFlight.Load())
	}
	if err := a.full(full); !strings.Contains(err.Error(), "all namespaces together have 1") {
		t.Error(err)
	}
	b.leave()
	if a.enter() != nil {
		t.Error("no room in what became free")
	}
}

// Percentiles of several gateways are of all durations together, not of the gateways' own percentiles.
func TestStatsOfSeveralGateways(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	figures := func(from, to int) FunctionStats {
		var s stats
		for i := from; i < to; i++ {
			s.record(now, time.Duration(i+1)*time.Second, outcome{status: 200, cold: i%2 == 0})
		}
		var out FunctionStats
		s.read(now, true, &out)
		return out
	}
	all, few, many := figures(0, 100), figures(0, 10), figures(10, 100)
	few.Merge(many)
	if few.Requests != 100 || few.ColdStarts != 50 || few.P50 != all.P50 || few.P99 != all.P99 || few.Codes != nil {
		t.Errorf("%+v, want %+v", few, all)
	}
	if !slices.Equal(few.Durations, all.Durations) {
		t.Errorf("%v, want %v", few.Durations, all.Durations)
	}
	// What cannot be a bucket is left out.
	few.Merge(FunctionStats{Durations: Durations{{1 << 40, 1}, {buckets, 1}}})
	if few.P50 != all.P50 || !slices.Equal(few.Durations, all.Durations) {
		t.Errorf("%+v", few)
	}
	if plain := func() FunctionStats { var s stats; var out FunctionStats; s.read(now, false, &out); return out }(); plain.Durations != nil {
		t.Errorf("%+v", plain)
	}
}
