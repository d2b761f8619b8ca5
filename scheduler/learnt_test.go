package scheduler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// What keep-alive has learnt is known to the next scheduler over the same store, and stored again when that one ends; with the function it goes.
func TestARestartKnowsTheIdleTimes(t *testing.T) {
	t.Parallel()
	b := openBus(t)
	w := startWorker(t, b)
	key := bus.FunctionKey(hello)
	before := functions.IdleTimes{
		Schema: functions.Schema, Namespace: hello.Namespace, Function: hello.Name, Counts: []byte{0, 0, 7}, Logs: 3,
		Begun: time.Now().Add(-time.Hour), Ended: time.Now().Add(-time.Hour), Price: 20,
	}
	if _, err := b.IdleTimes().Put(t.Context(), key, before); err != nil {
		t.Fatal(err)
	}
	deploy(t, b, revision("rev_1"))
	known := func() bool {
		e := ask[bus.Explanation](t, b, bus.SubjectExplain, bus.ExplainRequest{Schema: bus.Schema, Function: &hello})
		for _, l := range e.Lines {
			if strings.HasPrefix(l.Text, "keep-alive: ") && strings.HasSuffix(l.Text, "from 7 idle times") {
				return true
			}
		}
		return false
	}
	var seq uint64
	for round := range 2 {
		stop := run(t, b, quick())
		if round == 0 {
			w.ready(w.next(bus.ActionStart).Instance)
			awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_1" })
		}
		seq++
		// More than is started ahead of a need, so that it shows when the demand is heard.
		demand(t, b, seq, 30)
		heard := func() bool {
			o := ask[bus.Overview](t, b, bus.SubjectOverview, nil)
			return len(o.Functions) == 1 && o.Functions[0].Desired >= 3
		}
		for end := time.Now().Add(patience); !heard() || !known(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("in round %d the idle times are not known", round)
			}
		}
		stop()
		after, _, err := b.IdleTimes().Get(t.Context(), key)
		if err != nil || string(after.Counts) != string(before.Counts) || !after.Ended.After(before.Ended) {
			t.Fatalf("in round %d was stored: %+v, error %v", round, after, err)
		}
		before.Ended = after.Ended
	}
	if err := b.Functions().Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	cfg := quick()
	cfg.SaveEvery = time.Millisecond
	run(t, b, cfg)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, _, err := b.IdleTimes().Get(t.Context(), key); fault.KindOf(err) == fault.NotFound {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the idle times of a deleted function stay")
		}
	}
}
