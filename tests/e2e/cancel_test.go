//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Where an instance runs one invocation at a time, a cancelled one that ends by itself keeps its instance, and one that goes on is stopped with it.
func TestCancelledAttempts(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("one", "probe", "concurrency: 1\nscale: {max: 1}\nqueue: {retries: 0}\n")
	on := func() functions.InstanceID {
		t.Helper()
		st := result(t, s, async(t, s, "one/pid", ""))
		if st.State != string(functions.StateSucceeded) || len(st.Attempts) == 0 {
			t.Fatalf("%+v", st)
		}
		return st.Attempts[len(st.Attempts)-1].Instance
	}
	cancelled := func(path string) {
		t.Helper()
		id := async(t, s, path+"&log=begins", "")
		// It counts as running before the function is told of it: what the function has not begun it need not end.
		eventually(t, time.Minute, path+" has begun", func() bool { return strings.Contains(s.Must("logs", "one").Stdout, "begins "+id) })
		cancel(t, s, id)
		if st := result(t, s, id); st.State != string(functions.StateCancelled) {
			t.Errorf("%s: %+v", path, st)
		}
	}
	first := on()
	cancelled("one/sleep?ms=600000")
	if now := on(); now != first {
		t.Errorf("%s was stopped for what had ended: %s", first, now)
	}
	cancelled("one/spin?ms=600000")
	if now := on(); now == first {
		t.Errorf("%s goes on with what was cancelled", first)
	}
}
