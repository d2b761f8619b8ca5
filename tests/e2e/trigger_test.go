//go:build e2e

package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// deployReceiver deploys the function that is made with CloudEvents' SDK, with what else its file says.
func deployReceiver(t *testing.T, s *harness.Server, name, spec string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "receiver"), "./tests/receiver")
	build.Dir, build.Env = harness.Root(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "tatami.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "name: %s\nsource: receiver\n%s", name, spec), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Must("deploy", "--file", file)
}

func triggerOf(t *testing.T, s *harness.Server, name string) v1.TriggerView {
	t.Helper()
	var v v1.TriggerView
	list(t, s, &v, "trigger", "show", name)
	return v
}

// A schedule in a function's file fires by itself, and its firings are there to look at.
func TestCron(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "triggers:\n  - {name: ticks, path: /echo, cron: {schedule: \"* * * * * *\", zone: Europe/Berlin, overlap: forbid}}\n")
	eventually(t, 20*time.Second, "two firings", func() bool { return triggerOf(t, s, "ticks").Status.Accepted >= 2 })
	s.Must("trigger", "pause", "ticks")
	v := triggerOf(t, s, "ticks")
	if v.Status.State != "paused" || len(v.Firings) < 2 {
		t.Fatalf("%+v", v)
	}
	ran := 0
	for _, f := range v.Firings {
		if f.Invocation == "" {
			continue
		}
		ran++
		if st := result(t, s, string(f.Invocation)); st.State != "succeeded" || !strings.Contains(st.Body, "tatami.cron") || !strings.Contains(st.Body, `"/echo"`) {
			t.Errorf("%+v", st)
		}
	}
	if ran < 2 {
		t.Errorf("%+v", v.Firings)
	}
}

// A request that is signed as GitHub signs becomes an invocation, from zero; one that is not does not get in.
func TestWebhook(t *testing.T) {
	s := harness.Start(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Deploy("probe", "probe", "")
	s.Must("trigger", "add", "pushes", "probe", "--webhook", "github", "--secret-file", secret, "--path", "/echo")
	body := `{"ref":"main"}`
	mac := hmac.New(sha256.New, []byte("hush"))
	mac.Write([]byte(body))
	signed := http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}, "X-Github-Event": {"push"}, "Content-Type": {"application/json"}}
	var first, again v1.Emitted
	for _, em := range []*v1.Emitted{&first, &again} {
		resp, got := s.Do("POST", "/hooks/pushes", body, signed)
		if err := json.Unmarshal([]byte(got), em); err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%s %s: %v", resp.Status, got, err)
		}
	}
	if first.ID != again.ID {
		t.Errorf("%+v, sent again %+v", first, again)
	}
	if st := result(t, s, string(first.ID)); st.State != "succeeded" || !strings.Contains(st.Body, "webhook.github.push") {
		t.Errorf("%+v", st)
	}
	resp, got := s.Do("POST", "/hooks/pushes", body+" ", signed)
	refused(t, resp, got, 401, "unauthenticated")
}

// The records of a Kafka topic become invocations, from zero.
func TestKafka(t *testing.T) {
	s := harness.Start(t)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	s.Deploy("probe", "probe", fmt.Sprintf("triggers:\n  - {name: records, path: /echo, kafka: {brokers: [%q], topic: orders, start: earliest}}\n", broker.ListenAddrs()[0]))
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for n := range 10 {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Append(nil, n)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "every record is taken in", func() bool {
		st := triggerOf(t, s, "records").Status
		return st.Accepted == 10 && st.Lag != nil && *st.Lag == 0
	})
	eventually(t, 20*time.Second, "every invocation ends", func() bool {
		var waiting []v1.InvocationStatus
		list(t, s, &waiting, "queue", "show", "probe")
		return len(waiting) == 0
	})
	var dead []v1.DeadLetter
	if list(t, s, &dead, "queue", "dead", "probe"); len(dead) > 0 {
		t.Errorf("%d dead letters: %+v", len(dead), dead[0])
	}
}

// An event of the official SDK is run by a function of the official SDK, from zero, and what that answers with by another one.
func TestCloudEvents(t *testing.T) {
	s := harness.Start(t)
	deployReceiver(t, s, "orders", "triggers:\n  - {name: orders, event: {}, reply: true, filters: [{exact: {type: order}}]}\n")
	s.Deploy("probe", "probe", "")
	s.Must("trigger", "add", "answers", "probe", "--event", "--filter", "type=answer", "--path", "/echo")

	sender, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(s.URL("/events")))
	if err != nil {
		t.Fatal(err)
	}
	e := cloudevents.NewEvent()
	e.SetID("1")
	e.SetSource("/shop")
	e.SetType("order")
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]int{"total": 7}); err != nil {
		t.Fatal(err)
	}
	if res := sender.Send(t.Context(), e); !cloudevents.IsACK(res) {
		t.Fatal(res)
	}
	eventually(t, 20*time.Second, "the answer is an event of its own", func() bool { return triggerOf(t, s, "answers").Status.Accepted == 1 })

	resp, body := s.Do("POST", "/events", `[{"specversion":"1.0","id":"2","source":"/shop","type":"order","data":{"total":8}}]`,
		http.Header{"Content-Type": {"application/cloudevents-batch+json"}})
	var out struct{ Invocations []v1.Emitted }
	if err := json.Unmarshal([]byte(body), &out); err != nil || resp.StatusCode != http.StatusAccepted || len(out.Invocations) != 1 {
		t.Fatalf("%s %s: %v", resp.Status, body, err)
	}
	if st := result(t, s, string(out.Invocations[0].ID)); st.State != "succeeded" || st.Body != `{"total":8}` {
		t.Errorf("%+v", st)
	}
	// What was handed over before the function had ended is there; its own end may come a little later.
	eventually(t, 20*time.Second, "the second answer", func() bool { return triggerOf(t, s, "answers").Status.Accepted == 2 })
	if v := triggerOf(t, s, "orders"); v.Status.Accepted != 2 || v.Status.State != "active" || !v.Declared {
		t.Errorf("%+v", v)
	}
	r := s.Must("trigger", "test", "answers", "-d", "by hand", "-o", "name")
	if st := result(t, s, strings.TrimSpace(r.Stdout)); st.State != "succeeded" || !strings.Contains(st.Body, "by hand") || !strings.Contains(st.Body, "tatami.test") {
		t.Errorf("%+v", st)
	}
	resp, body = s.Do("POST", "/events", "", http.Header{"Ce-Id": {"3"}})
	refused(t, resp, body, 400, "invalid-request")
}
