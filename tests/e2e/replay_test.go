//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// What a new revision does otherwise is seen before and after: its dead letters run on the one before it, and what is stored is replayed on both.
func TestRedriveAndReplayOnARevision(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "queue: {retries: 0, keepRequests: true}\nenv: {WHICH: first}\n")
	var revs []v1.Revision
	list(t, s, &revs, "rev", "ls", "probe")
	first := string(revs[0].ID)
	stored := async(t, s, "probe/env", "")
	if st := result(t, s, stored); !strings.Contains(st.Body, "first") {
		t.Fatalf("%+v", st)
	}
	s.Deploy("probe", "probe", "queue: {retries: 0, keepRequests: true}\nenv: {WHICH: second, PROBE_START: crash-each}\n")
	dead := async(t, s, "probe/env", "")
	if st := result(t, s, dead); st.State != string(functions.StateDead) {
		t.Fatalf("%+v", st)
	}
	again := strings.TrimSpace(s.Must("queue", "redrive", dead, "--revision", first, "-o", "name").Stdout)
	st := result(t, s, again)
	if st.State != string(functions.StateSucceeded) || !strings.Contains(st.Body, "first") || string(st.Attempts[0].Revision) != first {
		t.Errorf("%+v", st)
	}
	// The function sees its own names there, and nobody else sees the one it runs under.
	var env map[string]string
	if err := json.Unmarshal([]byte(st.Body), &env); err != nil || env["K_SERVICE"] != "probe" || env["K_REVISION"] != first {
		t.Errorf("%v: %s", err, st.Body)
	}
	if out := s.Must("fn", "ls", "-o", "name").Stdout; out != "probe\n" {
		t.Errorf("%q", out)
	}
	s.Deploy("probe", "probe", "queue: {retries: 0, keepRequests: true}\nenv: {WHICH: third}\n")
	r := s.CLI("replay", stored)
	if r.Exit != 3 || !strings.Contains(r.Stdout, "- ") || !strings.Contains(r.Stdout, "WHICH") {
		t.Errorf("ended with %d: %s%s", r.Exit, r.Stdout, r.Stderr)
	}
	r = s.CLI("replay", "probe", "--since", "10m", "--revision", first, "-o", "json")
	var out v1.Replayed
	dec := json.NewDecoder(strings.NewReader(r.Stdout))
	seen := map[functions.InvocationID]v1.Replayed{}
	for dec.Decode(&out) == nil {
		seen[out.Invocation] = out
		out = v1.Replayed{}
	}
	if len(seen) != 3 {
		t.Errorf("ended with %d, %d are replayed: %s%s", r.Exit, len(seen), r.Stdout, r.Stderr)
	}
	if was := seen[functions.InvocationID(dead)]; was.Before.State != functions.StateDead || was.Now.Status != http.StatusOK {
		t.Errorf("%+v", was)
	}
	if again := result(t, s, stored); !strings.Contains(again.Body, "first") {
		t.Errorf("the record is changed: %+v", again)
	}
}
