package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/cli/standin"
	"github.com/tatami-faas/tatami/tests/golden"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) {
	// The JetStream client leaves this one behind when its connection closes.
	leaks.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// over calls the API over TCP with the token.
func over(t *testing.T, s *standin.System, method, path, body string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Control.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Auth.Token())
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Control.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	resp, b := over(t, s, "GET", "/openapi.json", "")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", doc["openapi"])
	}
	golden.JSON(t, "openapi.json", doc)

	described := map[string]bool{}
	for path, methods := range doc["paths"].(map[string]any) {
		for method := range methods.(map[string]any) {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	served := map[string]bool{}
	err := chi.Walk(s.API.Handler().(chi.Routes), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !strings.HasPrefix(path, "/openapi") && !strings.HasPrefix(path, "/ui/") && path != "/login" {
			served[method+" "+path] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("what is served and what is described differ:\n%s", diff)
	}
}

// A listener on all addresses is told by one that the caller can use.
func TestAddressesThatCanBeCalled(t *testing.T) {
	t.Parallel()
	for listens, want := range map[string][2]string{
		"http://[::]:8080":      {"http://127.0.0.1:8080", "http://localhost:8080"},
		"http://0.0.0.0:8080":   {"http://127.0.0.1:8080", "http://localhost:8080"},
		"http://10.0.0.1:8080":  {"http://10.0.0.1:8080", "http://10.0.0.1:8080"},
		"http://127.0.0.1:8080": {"http://127.0.0.1:8080", "http://127.0.0.1:8080"},
	} {
		if got := api.LocalURL(listens); got != want[0] {
			t.Errorf("%s is opened as %s", listens, got)
		}
		s := standin.Start(t, standin.Config{PublicURL: listens})
		c := s.Client(t)
		if st, err := c.Status(t.Context()); err != nil || st.PublicURL != want[0] {
			t.Errorf("%s over the socket: %+v, %v", listens, st, err)
		}
		remote, err := client.New(strings.Replace(s.Control.URL, "127.0.0.1", "localhost", 1), client.WithToken(s.Auth.Token()))
		if err != nil {
			t.Fatal(err)
		}
		if st, err := remote.Status(t.Context()); err != nil || st.PublicURL != want[1] {
			t.Errorf("%s over TCP: %+v, %v", listens, st, err)
		}
		remote.Close()
		res := mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
		if res.URL != want[0]+"/fn/hello" {
			t.Errorf("%s: deployed at %s", listens, res.URL)
		}
	}
}

// Whatever refuses a request, the answer is a problem with a code.
func TestProblems(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{API: api.Config{MaxBlob: 1 << 20}})
	fn := "/v1/namespaces/default/functions/hello"
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               fault.Code
		says               string
	}{
		"no such path":            {"GET", "/v1/nothing", "", 404, fault.CodeNotFound, "/v1/nothing"},
		"no such method":          {"PATCH", fn, "", 405, fault.CodeInvalidRequest, "PATCH"},
		"no method at all":        {"BREW", "/coffee", "", 404, fault.CodeNotFound, "/coffee"},
		"a revision that matches": {"POST", fn + "/rollback", `{"revision":"*"}`, 404, fault.CodeFunctionNotFound, "hello"},
		"instances of a bad name": {"GET", "/v1/instances?function=Bad_Name", "", 400, fault.CodeInvalidRequest, "Bad_Name"},
		"queues of a bad name":    {"GET", "/v1/queues?namespace=-", "", 400, fault.CodeInvalidRequest, "namespace"},
		"logs of what":            {"GET", fn + "/logs?tial=1", "", 400, fault.CodeInvalidRequest, "tial"},
		"no such function":        {"GET", fn, "", 404, fault.CodeFunctionNotFound, "hello"},
		"a bad name":              {"GET", "/v1/namespaces/default/functions/Bad_Name", "", 400, fault.CodeInvalidRequest, "Bad_Name"},
		"a bad namespace":         {"GET", "/v1/namespaces/-/functions", "", 400, fault.CodeInvalidRequest, "namespace"},
		"no JSON":                 {"PUT", fn, "{", 400, fault.CodeInvalidRequest, "JSON"},
		"an unknown field":        {"PUT", fn, `{"digst":"x"}`, 422, fault.CodeInvalidRequest, "digst"},
		"a wrong type":            {"PUT", fn, `{"config":{"port":"eighty"}}`, 422, fault.CodeInvalidRequest, "config.port"},
		"a bad duration":          {"PUT", fn, `{"digest":"sha256:","config":{"timeout":"soon"}}`, 422, fault.CodeInvalidRequest, "soon"},
		"an unknown parameter":    {"GET", "/v1/instances?functon=x", "", 422, fault.CodeInvalidRequest, "functon"},
		"a body too large":        {"PUT", fn, `{"name":"` + strings.Repeat("x", 3<<20) + `"}`, 413, fault.CodeBodyTooLarge, ""},
		"a bad instance":          {"GET", "/v1/instances/x", "", 400, fault.CodeInvalidRequest, "instance"},
		"no such instance":        {"GET", "/v1/instances/ins_" + strings.Repeat("z", 26), "", 404, fault.CodeNotFound, "ins_z"},
		"a bad invocation":        {"GET", "/v1/invocations/x", "", 400, fault.CodeInvalidRequest, "invocation"},
		"no such node":            {"GET", "/v1/nodes/x", "", 404, fault.CodeNotFound, "x"},
		"a negative quota":        {"PUT", "/v1/quotas/default", `{"rate":-2}`, 400, fault.CodeInvalidRequest, "rate"},
		"no such intent":          {"PUT", "/v1/nodes/mat/intent", `{"intent":"gone"}`, 422, fault.CodeInvalidRequest, "intent"},
		"too long a reason":       {"PUT", "/v1/nodes/mat/intent", `{"intent":"cordoned","reason":"` + strings.Repeat("x", 600) + `"}`, 400, fault.CodeInvalidRequest, "reason"},
		"no such quota":           {"GET", "/v1/quotas/_other", "", 400, fault.CodeInvalidRequest, "_other"},
		"a total with a weight":   {"PUT", "/v1/quotas/_total", `{"weight":2}`, 400, fault.CodeInvalidRequest, "weight"},
		"a quota of another":      {"PUT", "/v1/quotas/default", `{"namespace":"b"}`, 400, fault.CodeInvalidRequest, "namespace"},
		"a bad digest":            {"PUT", "/v1/blobs/md5:x", "x", 400, fault.CodeInvalidRequest, "md5:x"},
		"another content":         {"PUT", "/v1/blobs/sha256:" + strings.Repeat("a", 64), "x", 422, fault.CodeInvalidArtifact, "digest"},
		"a blob too large":        {"PUT", "/v1/blobs/sha256:" + strings.Repeat("a", 64), strings.Repeat("x", 2<<20), 413, fault.CodeBodyTooLarge, "1048576"},
		"logs of nothing":         {"GET", fn + "/logs", "", 404, fault.CodeFunctionNotFound, "hello"},
		"a bad since":             {"GET", fn + "/logs?since=yesterday", "", 400, fault.CodeInvalidRequest, "since"},
		"a bad tail":              {"GET", fn + "/logs?tail=-1", "", 400, fault.CodeInvalidRequest, "tail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, b := over(t, s, c.method, c.path, c.body)
			var p problem.Problem
			if err := json.Unmarshal(b, &p); err != nil {
				t.Fatalf("%s: %s", resp.Status, b)
			}
			if resp.StatusCode != c.status || p.Status != c.status || p.Code != c.code || resp.Header.Get(problem.HeaderError) != string(c.code) ||
				resp.Header.Get("Content-Type") != problem.ContentType {
				t.Errorf("%s, %v: %s", resp.Status, resp.Header, b)
			}
			if !strings.Contains(p.Detail+p.Field+strings.Join(p.Details, " "), c.says) {
				t.Errorf("%s does not say %q", b, c.says)
			}
		})
	}
	t.Run("what is possible", func(t *testing.T) {
		t.Parallel()
		resp, b := over(t, s, "PATCH", fn, "")
		if allow := resp.Header.Get("Allow"); allow != "GET, PUT, DELETE" || !strings.Contains(string(b), allow) {
			t.Errorf("allowed is %q: %s", allow, b)
		}
		resp, b = over(t, s, "PUT", fn, "{}", "Content-Type", "application/x-www-form-urlencoded")
		if resp.StatusCode != 415 || !strings.Contains(string(b), "Content-Type: application/json") {
			t.Errorf("a form: %s %s", resp.Status, b)
		}
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	for name, path := range map[string]string{"the API": "/v1/status", "what is mounted": "/ui/", "the document": "/openapi.json", "blobs": "/v1/blobs/x"} {
		resp, err := s.Control.Client().Get(s.Control.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token: %s", name, resp.Status)
		}
	}
	c, err := client.New(s.Control.URL, client.WithToken(s.Auth.Token()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	link, err := c.DashboardLink(t.Context())
	if err != nil || link.URL != s.Control.URL+link.Path {
		t.Fatalf("%+v, %v", link, err)
	}
	resp, err := s.Control.Client().Get(link.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || len(resp.Cookies()) == 0 {
		t.Errorf("the link: %s", resp.Status)
	}
	rotated, err := c.RotateToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Status(t.Context())
	fails(t, err, fault.CodeUnauthenticated, "tatami token show")
	if shown, err := s.Client(t).Token(t.Context()); err != nil || shown != rotated {
		t.Errorf("over the socket: %q, %v", shown, err)
	}
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	img := image(t, "one")
	var all []string
	for d := range img.Blobs {
		all = append(all, d)
	}
	if missing, err := c.MissingBlobs(t.Context(), all); err != nil || len(missing) != len(all) {
		t.Errorf("before: %v, %v", missing, err)
	}
	half := all[0]
	if err := c.PutBlob(t.Context(), half, bytes.NewReader(img.Blobs[half]), int64(len(img.Blobs[half]))); err != nil {
		t.Fatal(err)
	}
	if missing, err := c.MissingBlobs(t.Context(), all); err != nil || len(missing) != len(all)-1 {
		t.Errorf("after one: %v, %v", missing, err)
	}
	upload(t, c, img) // what is there already is no error
	if missing, err := c.MissingBlobs(t.Context(), all); err != nil || len(missing) != 0 {
		t.Errorf("after all: %v, %v", missing, err)
	}
	if have, err := c.HasBlob(t.Context(), half); err != nil || !have {
		t.Errorf("%v, %v", have, err)
	}
	resp, _ := over(t, s, "HEAD", "/v1/blobs/"+half, "")
	gone, _ := over(t, s, "HEAD", "/v1/blobs/sha256:"+strings.Repeat("0", 64), "")
	if resp.StatusCode != 200 || gone.StatusCode != 404 {
		t.Errorf("HEAD: %s, %s", resp.Status, gone.Status)
	}
	err := c.PutBlob(t.Context(), "sha256:"+strings.Repeat("b", 64), io.LimitReader(zeros{}, 100), 1000)
	if err == nil {
		t.Error("an upload that ends early is taken")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Blobs go when no revision names them any more, and stay while one does, or one was asked for lately.
func TestUnusedBlobsGo(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{API: api.Config{BlobGrace: 3 * time.Second, SweepInterval: 50 * time.Millisecond}})
	c := s.Client(t)
	kept, gone := image(t, "kept"), image(t, "gone")
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, kept)})
	other := functions.Ref{Namespace: "default", Name: "other"}
	mustDeploy(t, c, other, v1.DeployRequest{Digest: upload(t, c, gone)})
	if err := c.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The two images share their configuration's form, not its content: all of the second one's blobs are its own.
	for {
		left := 0
		objects, err := s.Bus.Artifacts().List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if _, ok := gone.Blobs[o.Name]; ok {
				left++
			}
		}
		if left == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d unused blobs stay", left)
		}
	}
	// What a process left behind that ended half way through a deploy: a revision that no function lists.
	stray := functions.Revision{Schema: functions.Schema, ID: "rev_dddddddddddddddd", Namespace: "default", Function: "half"}
	if _, err := s.Bus.Revisions().Put(ctx, bus.RevisionKey(stray.Ref(), stray.ID), stray); err != nil {
		t.Fatal(err)
	}
	for {
		revisions, err := s.Bus.Revisions().List(ctx, "")
		if err != nil {
			t.Fatalf("a stray revision stays: %v", err)
		}
		if len(revisions) == 1 {
			break
		}
	}
	for d := range kept.Blobs {
		if have, err := s.Bus.Artifacts().Has(t.Context(), d); err != nil || !have {
			t.Errorf("a blob in use is gone: %v", err)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	texts := func(q client.LogQuery) (out []string) {
		t.Helper()
		if err := c.Logs(t.Context(), hello, q, func(l v1.LogLine) error { out = append(out, l.Stream+":"+l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := strings.Join(texts(client.LogQuery{}), " "); got != "stdout:listening stderr:a warning stdout:GET /" {
		t.Error(got)
	}
	if got := texts(client.LogQuery{Tail: 1}); len(got) != 1 || got[0] != "stdout:GET /" {
		t.Error(got)
	}
	if got := texts(client.LogQuery{Since: time.Date(2026, 1, 31, 12, 0, 1, 0, time.UTC)}); len(got) != 2 {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last string
	err := c.Logs(ctx, hello, client.LogQuery{Follow: true}, func(l v1.LogLine) error {
		if last = l.Text; last == "later" {
			cancel()
		}
		return nil
	})
	if err == nil || last != "later" {
		t.Errorf("followed to %q, %v", last, err)
	}
	resp, b := over(t, s, "GET", "/v1/namespaces/default/functions/hello/logs?tail=1", "", "Accept", "text/event-stream")
	if resp.Header.Get("Content-Type") != "text/event-stream" || !bytes.HasPrefix(b, []byte(`data: {"time"`)) || !bytes.HasSuffix(b, []byte("\n\n")) {
		t.Errorf("%v %q", resp.Header, b)
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	st, err := c.Status(t.Context())
	if err != nil || st.Nodes != 1 || st.Functions != 1 || st.Architectures[0] != "amd64" || st.PublicURL != s.Public.URL || st.Mode != "standalone" {
		t.Errorf("%+v, %v", st, err)
	}
	if n, err := c.Node(t.Context(), "mat"); err != nil || n.ID != standin.NodeID || n.State != "ready" || n.Instances != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	all, err := c.Instances(t.Context(), client.InstanceFilter{})
	if err != nil || len(all) != 1 || all[0].ID != standin.InstanceID || all[0].NodeName != "mat" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, node := range []string{string(standin.NodeID), "mat"} {
		if on, err := c.Instances(t.Context(), client.InstanceFilter{Node: node}); err != nil || len(on) != 1 {
			t.Errorf("on %s: %+v, %v", node, on, err)
		}
	}
	if none, err := c.Instances(t.Context(), client.InstanceFilter{Function: "other"}); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if e, err := c.ExplainFunction(t.Context(), hello); err != nil || e.Subject != "hello" || len(e.Lines) != 1 || !e.Nodes[0].Chosen {
		t.Errorf("%+v, %v", e, err)
	}
	_, err = c.ExplainInstance(t.Context(), functions.NewInstanceID())
	fails(t, err, fault.CodeNotFound)
	x, err := c.Exec(t.Context(), standin.InstanceID, []string{"false", "x"}, []byte("in"))
	if err != nil || x.ExitCode != 1 || string(x.Stdout) != "false x\nin" || string(x.Stderr) != "no\n" {
		t.Errorf("%+v, %v", x, err)
	}
	q, err := c.SetQuota(t.Context(), functions.Quota{Namespace: "default", CPU: 1000, Functions: 3})
	if err != nil || q.Own.CPU != 1000 || q.Used.Functions != 1 || q.Used.CPU != 250 || *q.Headroom.CPU != 750 || *q.Headroom.Functions != 2 {
		t.Errorf("%+v, %v", q, err)
	}
	if quotas, err := c.Quotas(t.Context()); err != nil || len(quotas) != 1 || quotas[0].Own.Functions != 3 {
		t.Errorf("%+v, %v", quotas, err)
	}
	// Without a scheduler, what does not need it still answers.
	s.Scheduler.Silence()
	if st, err = c.Status(t.Context()); err != nil || len(st.Warnings) == 0 || !strings.Contains(strings.Join(st.Warnings, " "), "scheduler") {
		t.Errorf("%+v, %v", st, err)
	}
	if f, err := c.Function(t.Context(), hello); err != nil || f.Current == nil || f.Current.Artifact.Architecture != "amd64" {
		t.Errorf("%+v, %v", f, err)
	}
	_, err = c.Nodes(t.Context())
	fails(t, err, fault.CodeUnavailable)
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	set := func(q functions.Quota) {
		t.Helper()
		if _, err := c.SetQuota(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	set(functions.Quota{Namespace: functions.QuotaDefaults, CPU: 3000, Rate: 50, Weight: 10})
	set(functions.Quota{Namespace: functions.QuotaTotal, CPU: 500, Memory: functions.GiB})
	set(functions.Quota{Namespace: "default", Rate: functions.Unbounded, Concurrent: 4})
	q, err := c.Quota(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	want := functions.Quota{Schema: functions.Schema, Namespace: "default", CPU: 3000, Concurrent: 4, Weight: 10}
	if q.Effective != want || q.Own.CPU != 0 || q.Own.Rate != functions.Unbounded {
		t.Errorf("own %+v gives %+v, want %+v", q.Own, q.Effective, want)
	}
	h := q.Headroom
	if *h.CPU != 250 || *h.Memory != functions.GiB-192*functions.MiB || *h.Concurrent != 4 || h.Rate != nil || h.Instances != nil {
		t.Errorf("headroom is cpu %d, memory %d, %+v", *h.CPU, *h.Memory, h)
	}
	all, err := c.Quotas(t.Context())
	if err != nil || len(all) != 3 || all[0].Namespace != functions.QuotaDefaults || all[1].Namespace != functions.QuotaTotal || all[1].Used.CPU != 250 {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = c.Deploy(t.Context(), functions.Ref{Namespace: "other", Name: "f"}, v1.DeployRequest{
		Digest: upload(t, c, image(t, "one")), Config: functions.Config{Limits: functions.Limits{CPU: 600}},
	})
	fails(t, err, fault.CodeQuotaExceeded, "cpu", "all namespaces together")
	for range 2 { // what is not there can be taken back, too
		if err := c.DeleteQuota(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
	}
	if q, err = c.Quota(t.Context(), "default"); err != nil || q.Effective.Rate != 50 || q.Effective.Concurrent != 0 {
		t.Errorf("%+v, %v", q, err)
	}
	set(functions.Quota{Namespace: functions.QuotaTotal, Functions: 1})
	mustDeploy(t, c, functions.Ref{Namespace: "a", Name: "f"}, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	_, err = c.Deploy(t.Context(), functions.Ref{Namespace: "b", Name: "f"}, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	fails(t, err, fault.CodeQuotaExceeded, "there are 1 functions")
}

func TestQueue(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	if qs, err := c.Queues(t.Context(), ""); err != nil || len(qs) != 1 || qs[0].Pending != 1 || qs[0].Ref() != hello {
		t.Errorf("%+v, %v", qs, err)
	}
	if q, err := c.Queue(t.Context(), hello); err != nil || q.Dead != 1 {
		t.Errorf("%+v, %v", q, err)
	}
	if l, err := c.QueueList(t.Context(), hello, functions.StateAccepted, 5); err != nil || len(l) != 1 || l[0].ID != standin.InvocationID {
		t.Errorf("%+v, %v", l, err)
	}
	if d, err := c.DeadLetters(t.Context(), hello, 0); err != nil || len(d) != 1 || d[0].Invocation.ID != standin.DeadID {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := c.DeadLetter(t.Context(), standin.DeadID); err != nil || string(d.Invocation.Body) != "payload" {
		t.Errorf("%+v, %v", d, err)
	}
	if i, err := c.Invocation(t.Context(), standin.InvocationID); err != nil || i.State != functions.StateAccepted {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := c.Cancel(t.Context(), standin.InvocationID); err != nil || i.State != functions.StateCancelled {
		t.Errorf("%+v, %v", i, err)
	}
	if r, err := c.Redrive(t.Context(), standin.DeadID, "rev_abcdefghijklmnop"); err != nil || r.Invocation != standin.InvocationID || r.RedriveOf != standin.DeadID {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Replay(t.Context(), standin.DeadID, ""); err != nil || len(r.Differences) != 4 || r.Now.Status != 200 {
		t.Errorf("%+v, %v", r, err)
	}
	if l, err := c.Ended(t.Context(), hello, time.Time{}, time.Time{}, 0); err != nil || len(l) != 1 || l[0].ID != standin.DeadID {
		t.Errorf("%+v, %v", l, err)
	}
	_, err := c.Replay(t.Context(), standin.DeadID, "rev_x")
	fails(t, err, fault.CodeInvalidRequest)
	if p, err := c.PurgeDead(t.Context(), hello, 5); err != nil || p.Removed != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	gone := functions.NewInvocationID(hello)
	_, err = c.Invocation(t.Context(), gone)
	fails(t, err, fault.CodeInvocationNotFound)
	_, err = c.Cancel(t.Context(), gone)
	fails(t, err, fault.CodeInvocationNotFound)
	_, err = c.Redrive(t.Context(), gone, "")
	fails(t, err, fault.CodeInvocationNotFound)
	_, err = c.Cancel(t.Context(), "inv_x")
	fails(t, err, fault.CodeInvalidRequest)
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Config{}, api.Deps{}, nil); err == nil {
		t.Error("an API without its parts was made")
	}
}

// What the gateway refuses by a quota is explained too, with what would lift it.
func TestExplainTellsOfBoundsThatAreReached(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	s := standin.Start(t, standin.Config{Traffic: func() api.Traffic {
		return api.Traffic{Functions: []api.FunctionTraffic{{Ref: ref, Traffic: v1.Traffic{InFlight: 4, RPS: 50}}}}
	}})
	c := s.Client(t)
	mustDeploy(t, c, ref, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	explain := func(q functions.Quota) string {
		t.Helper()
		if _, err := c.SetQuota(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		e, err := c.ExplainFunction(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, l := range e.Lines {
			all = append(all, l.Text)
		}
		return strings.Join(append(all, e.Try...), "\n")
	}
	for _, tc := range []struct {
		quota functions.Quota
		want  []string
	}{
		{functions.Quota{Namespace: "default", Concurrent: 4}, []string{"namespace default has 4 invocations in flight", "tatami quota set default --concurrent 8"}},
		{functions.Quota{Namespace: "default", Rate: 50}, []string{"namespace default begins 50 invocations a second", "tatami quota set default --rate 100"}},
		{functions.Quota{Namespace: functions.QuotaTotal, Concurrent: 3}, []string{"all namespaces together have 4 invocations", "tatami quota set --total --concurrent 6"}},
	} {
		got := explain(tc.quota)
		for _, want := range tc.want {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: %q is not in\n%s", tc.quota, want, got)
			}
		}
	}
	if got := explain(functions.Quota{Namespace: "default", Concurrent: 5, Rate: 60}); strings.Contains(got, "namespace default") {
		t.Errorf("with room left it says\n%s", got)
	}
}
