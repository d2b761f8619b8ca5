package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// activated is a revision that takes its socket from whoever starts it.
func activated(state functions.RevisionState, words ...string) *functions.Revision {
	rev := revision(words...)
	rev.State = state
	rev.Config.Readiness = functions.Readiness{Activation: true, Timeout: functions.Duration(time.Second)}
	return rev
}

// TestActivation: with its socket an instance is ready at once, though its process does not listen to anybody yet; but one of a revision that
// never served must show that it reads from that socket, and one that was given none is asked as any other.
func TestActivation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.driver.mu.Lock()
	w.driver.activates = true
	w.driver.mu.Unlock()
	id := w.serving(activated(functions.RevisionReady, "never"))
	if r := w.state(id, functions.InstanceReady); strings.Contains(r.Phases.PathReason, "listens by itself") {
		t.Errorf("%+v", r.Phases)
	}
	w.serving(activated(functions.RevisionPending, "status:501"))
	deaf := w.begin(activated(functions.RevisionPending, "never"))
	if r := w.state(deaf, functions.InstanceFailed); !strings.Contains(r.Reason, "LISTEN_FDS") {
		t.Errorf("failed because %q", r.Reason)
	}

	w.driver.mu.Lock()
	w.driver.activates = false
	w.driver.mu.Unlock()
	late := w.serving(activated(functions.RevisionReady, "late:20ms"))
	if r := w.state(late, functions.InstanceReady); r.Phases.Ready.Std() < 20*time.Millisecond || !strings.Contains(r.Phases.PathReason, "listens by itself") {
		t.Errorf("%+v", r.Phases)
	}
	never := w.begin(activated(functions.RevisionReady, "never"))
	if r := w.state(never, functions.InstanceFailed); !strings.Contains(r.Reason, "nothing listens") {
		t.Errorf("failed because %q", r.Reason)
	}
}
