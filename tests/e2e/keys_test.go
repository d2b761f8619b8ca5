//go:build e2e

package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// A key holds over the death of the server: what was accepted keeps its id, what was answered its answer, and of a call that the death broke
// off nobody claims to know.
func TestKeysOverADeath(t *testing.T) {
	s := harness.Start(t)
	// What sleeps does so until the server is killed, however long that takes to come to.
	const asleep = "/sleep?ms=1200000"
	s.Deploy("probe", "probe", "timeout: 30m\n")
	s.Deploy("safe", "probe", "timeout: 30m\nretrySafe: true\n")
	key := func(k string) http.Header { return http.Header{"Idempotency-Key": {k}} }
	resp, body := s.Do("POST", "/async/probe/echo", "work", key("a"))
	id := resp.Header.Get("Tatami-Invocation-Id")
	if resp.StatusCode != 202 || id == "" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	first, answer := s.Do("POST", "/fn/probe/echo", "call", key("b"))
	if first.StatusCode != 200 || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%s %v", first.Status, first.Header)
	}
	cut := make(chan struct{})
	for _, fn := range []string{"probe", "safe"} {
		go func() {
			// The kill ends it.
			_, _, _ = s.TryDo("POST", "/fn/"+fn+asleep, "", key("c"))
			cut <- struct{}{}
		}()
		eventually(t, time.Minute, "the call runs", func() bool {
			var f v1.Function
			list(t, s, &f, "fn", "show", fn)
			return f.Traffic.InFlight == 1
		})
		resp, body := s.Do("POST", "/fn/"+fn+asleep, "", key("c"))
		if refused(t, resp, body, 409, "conflict"); resp.Header.Get("Retry-After") == "" {
			t.Error("it does not say when to come again")
		}
	}
	s.Kill()
	<-cut
	<-cut
	s.Launch()
	resp, body = s.Do("POST", "/async/probe/echo", "work", key("a"))
	if resp.StatusCode != 202 || resp.Header.Get("Tatami-Invocation-Id") != id || resp.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%s %v %s", resp.Status, resp.Header, body)
	}
	if st := result(t, s, id); st.State != string(functions.StateSucceeded) {
		t.Errorf("%+v", st)
	}
	again, got := s.Do("POST", "/fn/probe/echo", "call", key("b"))
	if again.StatusCode != 200 || got != answer || again.Header.Get("Idempotency-Replayed") != "true" ||
		again.Header.Get("Tatami-Invocation-Id") != first.Header.Get("Tatami-Invocation-Id") {
		t.Errorf("%s %v %s", again.Status, again.Header, got)
	}
	resp, body = s.Do("POST", "/fn/probe/echo", "another call", key("b"))
	refused(t, resp, body, 422, "key-mismatch")
	resp, body = s.Do("POST", "/fn/probe"+asleep, "", key("c"))
	refused(t, resp, body, 409, "outcome-unknown")
	resp, body = s.Do("POST", "/fn/safe"+asleep+"1", "", key("c"))
	refused(t, resp, body, 422, "key-mismatch")
}
