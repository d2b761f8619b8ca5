package main

// decisions are the mutations of when the scheduler looks at a function.
var decisions = []mutation{
	{
		"a time to look that stays when it matters no longer",
		"scheduler/reconcile/line.go", "\tr.due.set(ref, r.nextLook)\n", "\tif !r.due.has(ref) {\n\t\tr.due.set(ref, r.nextLook)\n\t}\n", "./scheduler/reconcile:TestNothingIsDecidedBeforeItsTime",
	},
	{
		"a report about which there is nothing to decide, decided about",
		"scheduler/reconcile/rest.go", "return f != nil && (f.Resting() || r.settled(f))", "return f == nil", "./scheduler/reconcile:TestNothingIsDecidedBeforeItsTime",
	},
	{
		"an instance that leaves, taken for one at rest",
		"scheduler/reconcile/rest.go", "in.Confirmed && in.Active()", "in.Confirmed", "./scheduler/reconcile:TestWhatIsUnderWayIsLookedAt",
	},
	{
		"a function without a time, taken for one at rest",
		"scheduler/reconcile/rest.go", " || !r.due.has(f.Ref)", "", "./scheduler/reconcile:TestWhatIsUnderWayIsLookedAt",
	},
	{
		"a heap of times that is not kept in order",
		"scheduler/reconcile/due.go", "\t\theap.Fix(&d.heap, e.place)\n", "", "./scheduler/reconcile:TestDueTimes",
	},
	{
		"an input that overtakes one that waits",
		"scheduler/scheduler.go", "if s.queued.Load() > 0 || !s.mu.TryLock() {", "if !s.mu.TryLock() {", "./scheduler:TestInputsKeepTheirOrder",
	},
	{
		"a loop that is not told of what is due sooner",
		"scheduler/scheduler.go", "if next := s.next(); next.Before(s.wake) {", "if next := s.next(); next.IsZero() {", "./scheduler:TestAnInputWakesTheLoop",
	},
	{
		"an input that is taken by who leads no longer",
		"scheduler/scheduler.go", "\ts.running.Store(false)\n", "", "./scheduler:TestNothingIsTakenAfterTheEnd",
	},
}
