package invoke

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Each exchange ends at its own deadline, whatever the order in which they came; those that are removed do not end.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deadlines{alarms: &alarms{}}
		begun := time.Now()
		after := []time.Duration{3 * time.Second, time.Second, time.Second, 5 * time.Second, 2 * time.Second, 0, 4 * time.Second}
		var all []*exchange
		for _, wait := range after {
			x := &exchange{expiry: expiry{at: begun.Add(wait)}}
			d.add(&x.expiry, x)
			all = append(all, x)
		}
		removed := []int{2, 4}
		for _, i := range removed {
			d.remove(&all[i].expiry)
			d.remove(&all[i].expiry)
		}
		for now := time.Duration(0); now <= 6*time.Second; now += 500 * time.Millisecond {
			synctest.Wait()
			for i, x := range all {
				over := after[i] <= now && !slices.Contains(removed, i)
				if got := !x.uncut(); got != over {
					t.Errorf("after %s: exchange %d with %s: ended %t, want %t", now, i, after[i], got, over)
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
		if d.first != nil || !d.next.IsZero() {
			t.Errorf("left: %v, the timer rings at %v", d.first, d.next)
		}
		// One that comes later is held, too.
		x := &exchange{expiry: expiry{at: time.Now().Add(time.Second)}}
		d.add(&x.expiry, x)
		time.Sleep(time.Second)
		synctest.Wait()
		if x.uncut() {
			t.Error("the timer did not ring again")
		}
	})
}

// The functions' deadlines share a timer, and each rings at its own time, whichever of them was set first; where a sooner one comes, it does not wait
// for the others.
func TestFunctionsShareAlarms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a alarms
		begun := time.Now()
		after := []time.Duration{4 * time.Second, 2 * time.Second, 6 * time.Second, 2 * time.Second, time.Second}
		of := make([]deadlines, len(after))
		var all []*exchange
		for i, wait := range after {
			of[i].alarms = &a
			x := &exchange{expiry: expiry{at: begun.Add(wait)}}
			of[i].add(&x.expiry, x)
			all = append(all, x)
		}
		// The third function's alarm is for its second request now, and its first one still ends at its time.
		sooner := &exchange{expiry: expiry{at: begun.Add(3 * time.Second)}}
		of[2].add(&sooner.expiry, sooner)
		after, all = append(after, 3*time.Second), append(all, sooner)
		for now := time.Duration(0); now <= 7*time.Second; now += 500 * time.Millisecond {
			synctest.Wait()
			for i, x := range all {
				if got, over := !x.uncut(), after[i] <= now; got != over {
					t.Errorf("after %s: exchange %d with %s: ended %t, want %t", now, i, after[i], got, over)
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
		if len(a.due) != 0 || !a.next.IsZero() {
			t.Errorf("left: %d alarms, the timer rings at %v", len(a.due), a.next)
		}
	})
}

// However often a function is called within its timeout, it sets its alarm once.
func TestABusyFunctionSetsItsAlarmOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a alarms
		d := deadlines{alarms: &a}
		for range 10 {
			x := &exchange{expiry: expiry{at: time.Now().Add(time.Minute)}}
			d.add(&x.expiry, x)
			time.Sleep(time.Second)
			d.remove(&x.expiry)
		}
		if len(a.due) != 1 {
			t.Errorf("%d alarms are set, want 1", len(a.due))
		}
	})
}

// The wait for a slot ends at its deadline, whether the waiter is in the list then or is about to be refused what it was granted.
func TestAWaitEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := &function{}
	f.pool.init(f)
	live := &functions.Revision{ID: "rev_a"}
	f.route.Store(&route{live: live})
	p := &f.pool
	_, listed := p.acquire(Sync, 5, now)
	listed.expire()
	if g := <-listed.ready; !errors.Is(g.err, errWaited) || p.sync.n != 0 {
		t.Errorf("granted %+v, want the end of the wait; %d wait", g, p.sync.n)
	}
	_, refused := p.acquire(Sync, 5, now)
	p.add(&bus.Endpoint{Instance: "ins_a", Slots: 1, Revision: live.ID}, nil, now)
	g := <-refused.ready
	if g.inst == nil {
		t.Fatalf("granted %+v, want a slot", g)
	}
	refused.expire()
	p.again(g.inst, refused, now)
	select {
	case g = <-refused.ready:
		if !errors.Is(g.err, errWaited) {
			t.Errorf("granted %+v, want the end of the wait", g)
		}
	default:
		t.Error("who was refused when its time was over waits for ever")
	}
	if p.inFlight != 0 {
		t.Errorf("%d slots are taken, want none", p.inFlight)
	}
}
