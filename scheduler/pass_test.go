package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// Every function is looked at again and again, however many there are, and never all of many at once.
func TestManyFunctionsAreLookedAtBitByBit(t *testing.T) {
	t.Parallel()
	const fns, most = 2000, 300
	core := reconcile.New(reconcile.Config{}, functions.NewInstanceID)
	now := epoch
	for i := range fns {
		ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("f%d", i)}
		core.SetFunction(now, functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: "r"})
		core.SetRevision(now, functions.Revision{ID: "r", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady})
	}
	core.Synced(now)
	looked := func() (n int) {
		for _, f := range core.State().Functions {
			if f.Reason != "" {
				n++
			}
		}
		return n
	}
	now = now.Add(time.Second)
	core.Tick(now)
	if n := looked(); n != fns {
		t.Fatalf("%d of %d functions were looked at when the decisions began", n, fns)
	}
	for round := range 3 {
		for _, f := range core.State().Functions {
			f.Reason = ""
		}
		// As the scheduler does it where nothing is under way: a tick a second, and what Next asks for between.
		tick := now.Add(time.Second)
		for last, steps := 0, 0; last < fns; steps++ {
			if steps > 10_000 {
				t.Fatalf("round %d: %d of %d functions were looked at", round, last, fns)
			}
			if next := core.Next(); !next.IsZero() && next.Before(tick) {
				now = next
				core.Due(now)
			} else {
				now, tick = tick, tick.Add(time.Second)
				core.Tick(now)
			}
			n := looked()
			if n-last > most {
				t.Fatalf("round %d: %d functions were looked at in one step", round, n-last)
			}
			last = n
		}
	}
}
