//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// status is what GET /invocations/{id} tells.
type status struct {
	ID       string              `json:"id"`
	State    string              `json:"state"`
	Status   int                 `json:"status"`
	Reason   string              `json:"reason"`
	Attempts []functions.Attempt `json:"attempts"`
	Body     string              `json:"body"`
}

func (s status) terminal() bool { return functions.InvocationState(s.State).Terminal() }

// async hands an invocation over and returns its id.
func async(t *testing.T, s *harness.Server, fn, body string) string {
	t.Helper()
	resp, got := s.Do("POST", "/async/"+fn, body, nil)
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("async %s: %s %s", fn, resp.Status, got)
	}
	var v struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(got), &v); err != nil || v.ID == "" {
		t.Fatalf("async %s: %q, %v", fn, got, err)
	}
	if loc := resp.Header.Get("Location"); loc != "/invocations/"+v.ID {
		t.Fatalf("Location %q for %s", loc, v.ID)
	}
	return v.ID
}

// cancel asks for the end of an invocation.
func cancel(t *testing.T, s *harness.Server, id string) {
	t.Helper()
	resp, got := s.Do("DELETE", "/invocations/"+id, "", nil)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		t.Fatalf("cancelling %s: %s %s", id, resp.Status, got)
	}
}

// result waits until the invocation is in a terminal state.
func result(t *testing.T, s *harness.Server, id string) status {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		st := lookup(t, s, id, "30s")
		if st.terminal() {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still %s", id, st.State)
		}
	}
}

func lookup(t *testing.T, s *harness.Server, id, wait string) status {
	t.Helper()
	resp, got := s.Get("/invocations/" + id + "?wait=" + wait)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("invocation %s: %s %s", id, resp.Status, got)
	}
	var st status
	if err := json.Unmarshal([]byte(got), &st); err != nil {
		t.Fatalf("invocation %s: %q: %v", id, got, err)
	}
	return st
}

// instances lists the instances of a function that are not gone.
func instances(t *testing.T, s *harness.Server, fn string) []v1.Instance {
	t.Helper()
	var all []v1.Instance
	list(t, s, &all, "inst", "ls")
	var out []v1.Instance
	for _, i := range all {
		if i.Function == fn && !i.State.Gone() {
			out = append(out, i)
		}
	}
	return out
}

func list(t *testing.T, s *harness.Server, into any, args ...string) {
	t.Helper()
	r := s.Must(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		t.Fatalf("tatami %s -o json: %v\n%s", strings.Join(args, " "), err, r.Stdout)
	}
}

// patience is how much longer than on an idle machine things may take on a loaded one.
const patience = 4

// eventually waits until cond holds, which takes so long at the most on an idle machine; the state it looks at has no event that a test
// outside the process could wait for.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience * within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience*within, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// refused checks that an answer is the platform's own, with the status and the code.
func refused(t *testing.T, resp *http.Response, body string, wantStatus int, wantCode string) {
	t.Helper()
	if resp.StatusCode != wantStatus || resp.Header.Get("Tatami-Error") != wantCode {
		t.Errorf("%s with Tatami-Error %q, want %d with %q: %s", resp.Status, resp.Header.Get("Tatami-Error"), wantStatus, wantCode, body)
	}
}
