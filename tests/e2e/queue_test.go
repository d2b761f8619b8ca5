//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// What fails is tried again and ends as a dead letter with everything that is needed to understand it.
func TestRetriesAndDeadLetters(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "queue: {retries: 1}\n")
	// A crash takes what else runs on the instance with it: the function that crashes is one of its own.
	s.Deploy("crasher", "probe", "queue: {retries: 1}\n")

	failing := async(t, s, "probe/status?code=503", "the payload")
	final := async(t, s, "probe/status?code=400", "")
	crash := async(t, s, "crasher/crash", "")
	good := async(t, s, "probe/echo?x=1", "fine")

	if st := result(t, s, good); st.State != string(functions.StateSucceeded) || !strings.Contains(st.Body, "fine") {
		t.Errorf("%+v", st)
	}
	if st := result(t, s, final); st.State != string(functions.StateDead) || st.Status != 400 || len(st.Attempts) != 1 {
		t.Errorf("a final answer: %+v", st)
	}
	if st := result(t, s, failing); st.State != string(functions.StateDead) || st.Status != 503 || len(st.Attempts) != 2 {
		t.Errorf("a retry: %+v", st)
	}
	if st := result(t, s, crash); st.State != string(functions.StateDead) || len(st.Attempts) != 2 || st.Attempts[0].Error != "function-crashed" {
		t.Errorf("a crash: %+v", st)
	}
	var dead []functions.DeadLetter
	list(t, s, &dead, "queue", "dead", "probe")
	found := false
	for _, d := range dead {
		if string(d.Invocation.ID) == failing {
			found = true
			if string(d.Invocation.Body) != "the payload" || len(d.Invocation.History) != 2 || d.Reason == "" {
				t.Errorf("%+v", d)
			}
		}
	}
	if !found || len(dead) != 2 {
		t.Errorf("%d dead letters, %s among them: %v", len(dead), failing, found)
	}
	if out := s.Must("queue", "show", failing).Stdout; !strings.Contains(out, "dead") {
		t.Errorf("queue show: %s", out)
	}
}

// `Prefer: respond-async` hands any request over as it is; the answer is fetched later, and the CLI does both in one call.
func TestRespondAsync(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "")
	resp, body := s.Do("PUT", "/fn/probe/echo/deep?q=1", "data", http.Header{"Prefer": {"respond-async"}, "X-Mine": {"kept"}})
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Preference-Applied") != "respond-async" {
		t.Fatalf("%s %v %s", resp.Status, resp.Header, body)
	}
	st := result(t, s, strings.TrimPrefix(resp.Header.Get("Location"), "/invocations/"))
	var e struct {
		Method, Path, Query, Body string
		Header                    http.Header `json:"headers"`
	}
	if err := json.Unmarshal([]byte(st.Body), &e); err != nil {
		t.Fatalf("%v %+v", err, st)
	}
	if e.Method != "PUT" || e.Path != "/echo/deep" || e.Query != "q=1" || e.Body != "data" || e.Header.Get("X-Mine") != "kept" {
		t.Errorf("%+v", e)
	}
	r := s.CLIWithInput("from stdin", "invoke", "probe", "-d", "@-", "--path", "/cat", "--async", "--wait")
	if r.Exit != 0 || r.Stdout != "from stdin" {
		t.Errorf("ended with %d: %q %s", r.Exit, r.Stdout, r.Stderr)
	}
	big := strings.Repeat("0123456789abcdef", 2<<16)
	r = s.CLIWithInput(big, "invoke", "probe", "-d", "@-", "--path", "/cat", "--async", "--wait")
	if r.Exit != 0 || r.Stdout != big {
		t.Errorf("2 MiB through the queue: ended with %d, %d bytes back: %.200s", r.Exit, len(r.Stdout), r.Stderr)
	}
	for path, exit := range map[string]int{"/status?code=404": 9, "/crash": 9, "/echo": 0} {
		if r := s.CLI("invoke", "probe", "--path", path); r.Exit != exit {
			t.Errorf("invoke %s ended with %d, want %d: %s", path, r.Exit, exit, r.Stderr)
		}
	}
	if r := s.CLI("invoke", "nobody"); r.Exit != 4 {
		t.Errorf("invoke of nobody ended with %d: %s", r.Exit, r.Stderr)
	}
}

// A namespace's quota bounds its instances and its functions, and says so.
func TestQuota(t *testing.T) {
	s := harness.Start(t)
	s.Must("quota", "set", "small", "--instances", "1", "--functions", "1", "--concurrent", "2")
	s.Deploy("one", "probe", "namespace: small\nconcurrency: 1\ntimeout: 5m\nscale: {max: 5}\n")
	r := s.TryDeploy("two", "probe", "namespace: small\n")
	if r.Exit != 6 || !strings.Contains(r.Stderr, "small") {
		t.Errorf("a second function: ended with %d: %s", r.Exit, r.Stderr)
	}
	if out := s.Must("fn", "ls", "-o", "name").Stdout; out != "one.small\n" {
		t.Errorf("a refused deploy left %q", out)
	}
	// One instance is all there may be: a third caller at once is one too many for the namespace. The first two stay until their bodies end.
	codes := make(chan int, 2)
	var bodies []*io.PipeWriter
	for range cap(codes) {
		body, end := io.Pipe()
		bodies = append(bodies, end)
		go func() {
			resp, err := http.Post(s.URL("/fn/one.small/upload"), "text/plain", body)
			if err != nil {
				codes <- 0
				return
			}
			resp.Body.Close()
			codes <- resp.StatusCode
		}()
	}
	eventually(t, 30*time.Second, "two callers are there", func() bool {
		var fn v1.Function
		list(t, s, &fn, "fn", "show", "one.small")
		return fn.Traffic.InFlight+fn.Traffic.Waiting == cap(codes)
	})
	resp, body := s.Get("/fn/one.small/pid")
	refused(t, resp, body, 429, "quota-exceeded")
	for _, b := range bodies {
		b.Close()
	}
	for range cap(codes) {
		if code := <-codes; code != 200 {
			t.Errorf("a caller within the quota is answered %d", code)
		}
	}
	if n := len(instances(t, s, "one")); n != 1 {
		t.Errorf("%d instances under a quota of 1", n)
	}
	eventually(t, 20*time.Second, "explain says why there is no second instance", func() bool {
		return strings.Contains(s.Must("explain", "one.small").Stdout, "quota")
	})
}
