package invoke

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Each exchange ends at its own deadline, whatever the order in which they came; those that are removed do not end.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d deadlines
		begun := time.Now()
		after := []time.Duration{3 * time.Second, time.Second, time.Second, 5 * time.Second, 2 * time.Second, 0, 4 * time.Second}
		var all []*exchange
		for _, wait := range after {
			x := &exchange{deadline: begun.Add(wait)}
			d.add(x)
			all = append(all, x)
		}
		removed := []int{2, 4}
		for _, i := range removed {
			d.remove(all[i])
			d.remove(all[i])
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
		x := &exchange{deadline: time.Now().Add(time.Second)}
		d.add(x)
		time.Sleep(time.Second)
		synctest.Wait()
		if x.uncut() {
			t.Error("the timer did not ring again")
		}
	})
}
