package api

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

// A worker that has said that it leaves is not lost, however long ago that was.
func TestWhatANodeIs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for want, n := range map[string]bus.NodeStatus{
		"ready":    {LastSeen: now},
		"draining": {LastSeen: now, NodeState: bus.NodeState{Draining: true}},
		"lost":     {LastSeen: now.Add(-2 * lostAfter), NodeState: bus.NodeState{Draining: true}},
		"left":     {LastSeen: now.Add(-2 * lostAfter), NodeState: bus.NodeState{Draining: true, Departed: true}},
	} {
		if got := nodeState(n, now); got != want {
			t.Errorf("a node that is %s is shown as %s", want, got)
		}
	}
}

// What a node has that has left counts no longer.
func TestNodesThatHaveLeftAreNotCounted(t *testing.T) {
	t.Parallel()
	nodes := []bus.NodeStatus{{ID: "nod_1"}, {ID: "nod_2", NodeState: bus.NodeState{Departed: true}}, {ID: "nod_3"}}
	if got := present(nodes); len(got) != 2 || got[0].ID != "nod_1" || got[1].ID != "nod_3" {
		t.Errorf("%+v", got)
	}
}
