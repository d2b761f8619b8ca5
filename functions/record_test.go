package functions_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	goldenfile "github.com/tatami-faas/tatami/tests/golden"
)

func golden(t *testing.T, name, got string) string {
	t.Helper()
	goldenfile.Check(t, name, []byte(got+"\n"))
	return got
}

// Stored records stay readable for ever: the files are what the first release wrote, with every field set.
func TestRecords(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 6, 0, 0, 123456789, time.UTC)
	retries := 2
	cfg := functions.Config{
		Command: []string{"/function", "-v"}, Env: map[string]string{"A": "1"}, ReadOnlyRoot: true,
		Protocol: "h2c", Readiness: functions.Readiness{Path: "/ready"}, Labels: map[string]string{"team": "x"}, Queue: functions.Queue{Retries: &retries},
	}.WithDefaults()
	attempt := functions.Attempt{
		Number: 1, Revision: "rev_a", Instance: "ins_a", Started: at, Ended: at.Add(time.Second), Status: 503, Error: "function-crashed", Message: "exited with code 1", Cold: true,
	}
	ref := &functions.BodyRef{Object: "inv_a/request", Size: 3, SHA256: "aa"}
	inv := functions.Invocation{
		Schema: functions.Schema, ID: "inv_a", Namespace: "default", Function: "hello", Trigger: "http", Method: "POST", Path: "/a%2Fb", Query: "q=1",
		Header: map[string][]string{"Content-Type": {"text/plain"}}, Body: []byte("abc"), BodyRef: ref,
		Accepted: at, Deadline: at.Add(6 * time.Hour), Attempt: 2, History: []functions.Attempt{attempt}, RedriveOf: "inv_b",
	}
	records := map[string]any{
		"function.json": &functions.Function{
			Schema: functions.Schema, Namespace: "default", Name: "hello", Live: "rev_b", Candidate: "rev_c", Previous: "rev_a",
			Revisions: []functions.RevisionID{"rev_a", "rev_b", "rev_c"}, Generation: 7, Created: at, Updated: at,
		},
		"revision.json": &functions.Revision{
			Schema: functions.Schema, ID: "rev_a", Namespace: "default", Function: "hello", Config: cfg, Created: at, State: functions.RevisionFailed,
			Artifact: functions.Artifact{Digest: "sha256:" + strings.Repeat("a", 64), Reference: "example.com/x", Name: "x:1", Architecture: "amd64", Size: 12},
			Reason:   "exited with code 1", Logs: []string{"boom"},
		},
		"invocation.json": &inv,
		"result.json": &functions.Result{
			Schema: functions.Schema, ID: "inv_a", Namespace: "default", Function: "hello", State: functions.StateSucceeded, Reason: "r",
			Attempts: []functions.Attempt{attempt}, Status: 200, Header: map[string][]string{"A": {"b"}}, Body: []byte("ok"), BodyRef: ref, Accepted: at, Finished: at,
		},
		"deadletter.json": &functions.DeadLetter{Schema: functions.Schema, Invocation: inv, Reason: "gave up", Died: at},
		"trigger.json":    trigger(at),
		"triggerstate.json": &functions.TriggerState{
			Schema: functions.Schema, Namespace: "default", Name: "nightly", Last: at,
			Firings: []functions.Firing{{Scheduled: at, Fired: at, Outcome: functions.FiringSkipped, Reason: "r", Invocation: "inv_a"}},
		},
		"quota.json": &functions.Quota{Schema: functions.Schema, Namespace: "default", CPU: 1, Memory: 2, Instances: 3, Functions: 4, Concurrent: 5, Rate: 6},
	}
	for name, rec := range records {
		goldenfile.JSON(t, name, rec)
		stored, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		back := newOf(rec)
		if err := json.Unmarshal(stored, back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(rec, back); d != "" {
			t.Errorf("%s reads back otherwise (-want +got):\n%s", name, d)
		}
	}
}

// trigger has every field set, more than a valid one has.
func trigger(at time.Time) *functions.Trigger {
	is := map[string]string{"type": "t"}
	return &functions.Trigger{
		Schema: functions.Schema, Namespace: "default", Name: "orders", Function: "hello", Path: "/in", Paused: true, Declared: true, Reply: true,
		Filters: []functions.Filter{
			{Exact: is}, {Prefix: is}, {Suffix: is}, {All: []functions.Filter{{Exact: is}}}, {Any: []functions.Filter{{Exact: is}}}, {Not: &functions.Filter{Exact: is}},
		},
		Event:   &functions.EventSource{},
		Cron:    &functions.CronSource{Schedule: "0 3 * * *", Zone: "Europe/Berlin", Jitter: functions.Duration(time.Minute), Overlap: "forbid", CatchUp: "all", Data: "x"},
		Webhook: &functions.WebhookSource{Style: "stripe", Secret: functions.SecretRef{File: "/f", Env: "TATAMI_SECRET_X"}, Tolerance: functions.Duration(time.Minute)},
		Kafka: &functions.KafkaSource{
			Brokers: []string{"a:1"}, Topic: "t", Group: "g", Start: "earliest", TLS: true, CA: "/ca",
			SASL: &functions.KafkaSASL{Mechanism: "plain", User: "u", Password: functions.SecretRef{File: "/p"}},
		},
		NATS: &functions.NATSSource{
			Servers: []string{"nats://a:1"}, Subject: "s", Stream: "S", Group: "g", Start: "earliest", TLS: true, CA: "/ca", Credentials: "/c", User: "u",
			Password: functions.SecretRef{File: "/p"},
		},
		Created: at, Updated: at,
	}
}

func newOf(rec any) any {
	switch rec.(type) {
	case *functions.Function:
		return &functions.Function{}
	case *functions.Revision:
		return &functions.Revision{}
	case *functions.Invocation:
		return &functions.Invocation{}
	case *functions.Result:
		return &functions.Result{}
	case *functions.DeadLetter:
		return &functions.DeadLetter{}
	case *functions.Trigger:
		return &functions.Trigger{}
	case *functions.TriggerState:
		return &functions.TriggerState{}
	default:
		return &functions.Quota{}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Minute: "1m", time.Hour: "1h", 90 * time.Second: "1m30s", 6 * time.Hour: "6h", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", 0: "0s", 1500 * time.Microsecond: "1.5ms", 10 * time.Minute: "10m", 100 * time.Hour: "100h",
	} {
		b, err := functions.Duration(d).MarshalText()
		if err != nil || string(b) != want {
			t.Errorf("%d: %s, want %s", d, b, want)
		}
		var back functions.Duration
		if err := back.UnmarshalText(b); err != nil || back.Std() != d {
			t.Errorf("%s reads back as %s, %v", want, back, err)
		}
	}
	if err := new(functions.Duration).UnmarshalText([]byte("5 minutes")); err == nil {
		t.Error("a wrong unit is taken")
	}
}
