//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// After kill -9 with work queued and containers running, every accepted invocation ends in exactly one terminal state, and the
// containers that run are adopted: same process, serving again, logs going on, exec and delete working.
func TestKillNine(t *testing.T) {
	const queued, slots = 1000, 4
	s := harness.Start(t)
	s.Deploy("worker", "probe", fmt.Sprintf("concurrency: %d\nscale: {max: 1, keepAlive: 10m}\n", slots))
	s.Deploy("idle", "probe", "scale: {min: 1, max: 1, keepAlive: 10m}\n")
	if resp, body := s.Get("/fn/idle/log?lines=1"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	before := instances(t, s, "idle")
	if len(before) != 1 || before[0].PID == 0 {
		t.Fatalf("before the kill: %+v", before)
	}

	ids := make([]string, queued)
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < queued; i += 8 {
				ids[i] = async(t, s, "worker/sleep?ms=20&log=ran", fmt.Sprint(i))
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if id == "" {
			t.Fatalf("invocation %d was not accepted", i)
		}
	}
	s.Kill()
	s.Launch()

	after := awaitAdopted(t, s, before[0])
	resp, body := s.Get("/fn/idle/log?lines=2&to=stderr")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the adopted instance does not serve: %s %s", resp.Status, body)
	}
	eventually(t, 10*time.Second, "the logs of the adopted instance go on", func() bool {
		return strings.Count(s.Must("logs", "idle").Stdout, "line ") == 3
	})
	// The image holds nothing but the function, which finds its port taken: it runs in the instance's own network.
	if r := s.CLI("inst", "exec", string(after.ID), "--", "sh"); r.Exit != 2 || !strings.Contains(r.Stderr, "sh cannot be run") || strings.Contains(r.Stderr, "rpc") {
		t.Errorf("exec of what is not there ended with %d and gave %q, %q", r.Exit, r.Stdout, r.Stderr)
	}
	if r := s.CLI("inst", "exec", string(after.ID), "--", "/function"); r.Exit != 1 || !strings.Contains(r.Stderr, "address already in use") {
		t.Errorf("exec ended with %d and gave %q, %q", r.Exit, r.Stdout, r.Stderr)
	}

	again := 0
	for _, id := range ids {
		st := result(t, s, id)
		if st.State != string(functions.StateSucceeded) {
			t.Errorf("%s: %+v", id, st)
		}
		if len(st.Attempts) > 1 || len(st.Attempts) == 1 && st.Attempts[0].Number > 1 {
			again++
		}
	}
	if again > slots {
		t.Errorf("%d invocations show a further attempt, but only %d could run at the kill", again, slots)
	}
	checkRuns(t, s, ids, slots)
	s.Must("delete", "idle", "--yes")
	eventually(t, 30*time.Second, "the adopted instance is deleted", func() bool { return len(instances(t, s, "idle")) == 0 })
}

// awaitAdopted returns the one instance of a function once it serves after a restart of what runs it, and fails the test if that is another one
// than before, or another process: the worker takes over what runs while the rest of it already serves.
func awaitAdopted(t *testing.T, s *harness.Server, before v1.Instance) (after v1.Instance) {
	t.Helper()
	eventually(t, 30*time.Second, before.Function+" is adopted", func() bool {
		for _, after = range instances(t, s, before.Function) {
			if after.ID != before.ID || !after.Adopted || after.PID != 0 && after.PID != before.PID {
				t.Fatalf("not adopted: before %+v, after %+v", before, after)
			}
			if after.State.Serves() {
				return true
			}
		}
		return false
	})
	return after
}

// checkRuns counts by the function's own log how often each invocation ran: once, but for those that ran at the kill.
func checkRuns(t *testing.T, s *harness.Server, ids []string, slots int) {
	t.Helper()
	runs, twice := map[string]int{}, 0
	seen := map[string]bool{}
	for line := range strings.Lines(s.Must("logs", "worker").Stdout) {
		f := strings.Fields(line)
		// A line that the kill made the log repeat is the same to the nanosecond; a further run is not.
		if len(f) == 3 && f[0] == "ran" && !seen[line] {
			seen[line] = true
			runs[f[1]]++
		}
	}
	for _, id := range ids {
		switch n := runs[id]; {
		case n == 0:
			t.Errorf("%s succeeded but never ran", id)
		case n > 1:
			twice += n - 1
		}
	}
	if twice > slots {
		t.Errorf("%d further runs, but only %d could run at the kill", twice, slots)
	}
	if len(runs) != len(ids) {
		t.Errorf("%d invocations ran, %d were accepted", len(runs), len(ids))
	}
}

// An instance whose process ended while nobody watched is removed with a reason, and what it held is given back.
func TestExitedWhileDown(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "scale: {keepAlive: 10m}\n")
	s.Get("/fn/probe/pid")
	before := instances(t, s, "probe")
	if len(before) != 1 {
		t.Fatalf("%+v", before)
	}
	s.Kill()
	if err := killProcess(before[0].PID); err != nil {
		t.Fatal(err)
	}
	s.Launch()
	// The server serves before that: the log has the reason once the sandbox is gone, and then the scheduler is told.
	eventually(t, 30*time.Second, "the log says why the dead instance was removed", func() bool {
		return strings.Contains(s.Must("logs", "probe").Stdout, "while the worker was away")
	})
	eventually(t, 30*time.Second, "the dead instance is not there any more", func() bool {
		return !slices.ContainsFunc(instances(t, s, "probe"), func(i v1.Instance) bool { return i.ID == before[0].ID })
	})
	if resp, body := s.Get("/fn/probe/pid"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// Ctrl-C ends everything; the next start has every function, and results.
func TestRestart(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("hello", "hello", "")
	id := async(t, s, "hello", "x")
	first := result(t, s, id)
	s.Stop()
	s.CheckNothingLeft()
	s.Launch()
	if st := lookup(t, s, id, "0s"); st.State != first.State || st.Body != first.Body {
		t.Errorf("result before %+v, after %+v", first, st)
	}
	if resp, body := s.Get("/fn/hello"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
}
