package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/fleet"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func res(cpu, memory int64) functions.Resources {
	return functions.Resources{CPU: cpu, Memory: memory, Instances: 1}
}

// shape is what a worker of these tests offers.
var shape = functions.Resources{CPU: 1000, Memory: 1000, Instances: 10}

func worker(index int, reserved functions.Resources, instances int) fleet.Worker {
	return fleet.Worker{
		Node: functions.NodeID(rune('a' + index)), Index: index, Since: begin, Open: true, Allocatable: shape, Reserved: reserved, Instances: instances, Fits: true,
	}
}

// after decides again and again on the same view until the time has passed, and returns the last decision.
func after(v fleet.View, d time.Duration, m fleet.Memory) fleet.Decision {
	var out fleet.Decision
	for at := time.Duration(0); at <= d; at += time.Second {
		out = fleet.Decide(begin.Add(at), v, fleet.Policy{}, m)
		m = out.Memory
	}
	return out
}

func TestDecide(t *testing.T) {
	t.Parallel()
	full := functions.Resources{CPU: 1000, Memory: 1000, Instances: 10}
	for _, c := range []struct {
		name  string
		view  fleet.View
		over  time.Duration
		count int
		drain functions.NodeID
		why   string
	}{
		{name: "the least", view: fleet.View{Min: 2, Max: 5}, count: 2, why: "the least"},
		{name: "short for a moment", view: fleet.View{Count: 1, Max: 5, Workers: []fleet.Worker{worker(0, full, 10)}, Lacking: []fleet.Lack{{res(100, 100), 1}}}, over: time.Second, count: 1, why: "if that lasts"},
		{
			name: "short", view: fleet.View{Count: 1, Max: 5, Workers: []fleet.Worker{worker(0, full, 10)}, Lacking: []fleet.Lack{{res(400, 100), 3}, {res(100, 100), 2}}},
			over: 3 * time.Second, count: 3, why: "2 more wanted for 5 instances",
		},
		{name: "at the most", view: fleet.View{Count: 1, Max: 1, Workers: []fleet.Worker{worker(0, full, 10)}, Lacking: []fleet.Lack{{res(400, 100), 1}}}, over: time.Minute, count: 1, why: "1 is the most"},
		{name: "of unknown size", view: fleet.View{Max: 9, Lacking: []fleet.Lack{{res(400, 100), 90}}}, over: 3 * time.Second, count: 1, why: "1 more wanted"},
		{name: "too large", view: fleet.View{Count: 1, Max: 9, Workers: []fleet.Worker{worker(0, full, 10)}, Lacking: []fleet.Lack{{res(4000, 100), 2}}}, over: time.Minute, count: 1, why: "2 instances lack room and are larger"},
		{
			name: "one comes", view: fleet.View{Count: 2, Max: 9, Workers: []fleet.Worker{worker(0, full, 10), {Index: 1, Since: begin}}, Lacking: []fleet.Lack{{res(400, 100), 2}}},
			over: time.Minute, count: 2, why: "or come",
		},
		{
			name: "one never came", view: fleet.View{Count: 2, Max: 9, Workers: []fleet.Worker{worker(0, full, 10), {Index: 1, Since: begin}}, Lacking: []fleet.Lack{{res(400, 100), 2}}},
			over: 6 * time.Minute, count: 3, why: "1 more wanted",
		},
		{
			name: "busy", view: fleet.View{Count: 1, Max: 5, Busy: "a deployment is active", Workers: []fleet.Worker{worker(0, full, 10)}, Lacking: []fleet.Lack{{res(400, 100), 3}}},
			over: time.Minute, count: 1, why: "it waits: a deployment is active",
		},
		{name: "quiet, not for long", view: fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(1, 1), 1), worker(1, res(1, 1), 1)}}, over: 4 * time.Minute, count: 2, why: "quiet for 5m"},
		{name: "quiet", view: fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(1, res(1, 1), 1), worker(0, res(1, 1), 1)}}, over: 6 * time.Minute, count: 2, drain: "b", why: "being emptied"},
		{name: "empty", view: fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(1, 1), 1), worker(1, res(0, 0), 0)}}, over: 6 * time.Minute, count: 1, drain: "b", why: "is empty"},
		{name: "no room to spare", view: fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(700, 1), 1), worker(1, res(200, 1), 1)}}, over: time.Hour, count: 2, why: "less than 20% would be free"},
		{name: "to nothing", view: fleet.View{Count: 1, Max: 5, Workers: []fleet.Worker{worker(0, functions.Resources{}, 0)}}, over: 6 * time.Minute, count: 0, drain: "a", why: "is empty"},
		{name: "no place", view: fleet.View{Count: 4, Max: 5, Min: 1, Workers: []fleet.Worker{worker(0, functions.Resources{}, 0), worker(1, functions.Resources{}, 0)}}, over: 6 * time.Minute, count: 2, why: "2 workers have no place"},
		{name: "did not join", view: fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(1, 1), 1), {Index: 1, Since: begin}}}, over: 6 * time.Minute, count: 1, why: "did not join"},
		{name: "above the most", view: fleet.View{Count: 3, Max: 2, Workers: []fleet.Worker{worker(0, res(1, 1), 1), worker(1, res(1, 1), 1), worker(2, res(1, 1), 1)}}, over: 6 * time.Minute, count: 3, drain: "c", why: "being emptied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := after(c.view, c.over, fleet.Memory{})
			if d.Count != c.count || d.Drain != c.drain || !strings.Contains(d.Reason, c.why) {
				t.Errorf("%d, drain %q, %s; want %d, %q, %s", d.Count, d.Drain, d.Reason, c.count, c.drain, c.why)
			}
		})
	}
}

// What does not fit elsewhere keeps its worker, however long it is quiet.
func TestWhatFitsNowhereElseStays(t *testing.T) {
	t.Parallel()
	last := worker(1, res(1, 1), 1)
	last.Fits = false
	d := after(fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(1, 1), 1), last}}, time.Hour, fleet.Memory{})
	if d.Count != 2 || d.Drain != "" || !strings.Contains(d.Reason, "does not fit elsewhere") {
		t.Errorf("%d, drain %q, %s", d.Count, d.Drain, d.Reason)
	}
}

// A drain ends without its aim when demand comes, and when it lasts too long.
func TestADrainIsCalledOff(t *testing.T) {
	t.Parallel()
	v := fleet.View{Count: 2, Max: 5, Workers: []fleet.Worker{worker(0, res(1, 1), 1), worker(1, res(1, 1), 1)}}
	m := after(v, 6*time.Minute, fleet.Memory{}).Memory
	if m.Draining != "b" {
		t.Fatalf("%q is drained", m.Draining)
	}
	now := begin.Add(7 * time.Minute)
	short := v
	short.Lacking = []fleet.Lack{{res(500, 1), 1}}
	if d := fleet.Decide(now, short, fleet.Policy{}, m); d.Drain != "" || d.Count != 2 {
		t.Errorf("with demand: %d, drain %q, %s", d.Count, d.Drain, d.Reason)
	}
	late := fleet.Decide(begin.Add(17*time.Minute), v, fleet.Policy{}, m)
	if late.Drain != "" || late.Count != 2 {
		t.Errorf("after 10 minutes: %d, drain %q, %s", late.Count, late.Drain, late.Reason)
	}
	if d := fleet.Decide(begin.Add(18*time.Minute), v, fleet.Policy{}, late.Memory); d.Drain != "" {
		t.Errorf("it is drained again at once: %s", d.Reason)
	}
}
