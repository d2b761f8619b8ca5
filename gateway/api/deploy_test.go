package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/cli/standin"
)

var hello = functions.Ref{Namespace: "default", Name: "hello"}

// upload puts an image into the store and returns its digest.
func upload(t *testing.T, c *client.Client, img standin.Image) string {
	t.Helper()
	for d, b := range img.Blobs {
		if err := c.PutBlob(t.Context(), d, bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	return img.Digest
}

func image(t *testing.T, content string) standin.Image {
	return standin.NewImage(t, "amd64", standin.File{Name: "function", Content: content})
}

func mustDeploy(t *testing.T, c *client.Client, ref functions.Ref, req v1.DeployRequest) *v1.DeployResult {
	t.Helper()
	res, err := c.Deploy(t.Context(), ref, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// fails checks the code of an error, and that its text, hint and details hold what they should.
func fails(t *testing.T, err error, code fault.Code, says ...string) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Fatalf("got %q (%v), want %q", fault.CodeOf(err), err, code)
	}
	f := fault.From(err)
	all := err.Error() + "\n" + f.Hint + "\n" + f.Field + "\n" + strings.Join(f.Details, "\n")
	for _, s := range says {
		if !strings.Contains(all, s) {
			t.Errorf("%q does not say %q", all, s)
		}
	}
}

func TestDeploy(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	res := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest, Name: "./hello"})
	if !res.Live || !res.Changed || res.Previous != "" || res.Artifact.Digest != digest || res.Artifact.Architecture != "amd64" ||
		res.URL != s.Public.URL+"/fn/hello" {
		t.Errorf("%+v", res)
	}
	fn, at, err := s.Bus.Functions().Get(t.Context(), bus.FunctionKey(hello))
	if err != nil || fn.Live != res.Revision || fn.Candidate != "" {
		t.Fatalf("%+v, %v", fn, err)
	}
	if s.Routes.Waited() != at || s.Routes.Applied() < at {
		t.Errorf("waited for revision %d of the routes, want %d", s.Routes.Waited(), at)
	}

	again := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest, Name: "elsewhere"})
	if again.Changed || !again.Live || again.Revision != res.Revision {
		t.Errorf("the same content again: %+v", again)
	}
	if same, _, _ := s.Bus.Functions().Get(t.Context(), bus.FunctionKey(hello)); same.Generation != fn.Generation {
		t.Error("the same content again changed the record")
	}

	next := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Concurrency: 3}})
	if !next.Changed || next.Previous != res.Revision || next.Revision == res.Revision {
		t.Errorf("another configuration: %+v", next)
	}
	revs, err := c.Revisions(t.Context(), hello)
	if err != nil || len(revs) != 2 || revs[0].ID != next.Revision || !revs[0].Live || revs[1].Live || revs[0].Config.Concurrency != 3 {
		t.Errorf("%+v, %v", revs, err)
	}

	back, err := c.Rollback(t.Context(), hello, "")
	if err != nil || back.Revision != res.Revision || back.Previous != next.Revision {
		t.Errorf("rollback: %+v, %v", back, err)
	}
	forth, err := c.Rollback(t.Context(), hello, next.Revision)
	if err != nil || forth.Revision != next.Revision {
		t.Errorf("rollback to a named revision: %+v, %v", forth, err)
	}
	_, err = c.Rollback(t.Context(), hello, "rev_nothing")
	fails(t, err, fault.CodeNotFound, "rev_nothing", "tatami rev ls hello")
	for _, wild := range []functions.RevisionID{"*", ">", "../x", "rev_" + "*"} {
		_, err = c.Rollback(t.Context(), hello, wild)
		fails(t, err, fault.CodeNotFound, "tatami rev ls hello")
	}
	resp, b := over(t, s, "POST", "/v1/namespaces/default/functions/hello/rollback", "")
	if resp.StatusCode != 200 {
		t.Errorf("a rollback without a body: %s %s", resp.Status, b)
	}
}

func TestDeployThatFails(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	good := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest})

	s.Scheduler.Set("hello", standin.Outcome{Reason: "exited with code 1", Logs: []string{"no such file", "bye"}})
	req := v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 9000}}
	_, err := c.Deploy(t.Context(), hello, req)
	fails(t, err, fault.CodeFunctionNotReady, "exited with code 1", "| no such file", "| bye", string(good.Revision)+" keeps the traffic")
	fn, err := c.Function(t.Context(), hello)
	if err != nil || fn.Live != good.Revision || fn.Candidate != "" || len(fn.Revisions) != 2 {
		t.Errorf("%+v, %v", fn, err)
	}
	failed := fn.Revisions[1]
	_, err = c.Rollback(t.Context(), hello, failed)
	fails(t, err, fault.CodeConflict, "never became ready")

	// A rollback that fails says so, though the revision was ready once; the next try is not mistaken for it.
	first := good.Revision
	s.Scheduler.Set("hello", standin.Outcome{})
	second := mustDeploy(t, c, hello, req)
	if second.Revision != failed {
		t.Fatalf("the same content is %s, was %s", second.Revision, failed)
	}
	s.Scheduler.Set("hello", standin.Outcome{Reason: "no room"})
	_, err = c.Rollback(t.Context(), hello, first)
	fails(t, err, fault.CodeFunctionNotReady, "no room")
	s.Scheduler.Set("hello", standin.Outcome{})
	if _, err = c.Rollback(t.Context(), hello, first); err != nil {
		t.Errorf("the next try: %v", err)
	}

	_, err = c.Deploy(t.Context(), functions.Ref{Namespace: "default", Name: "first"}, v1.DeployRequest{Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDeployRefused(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	img := image(t, "one")
	digest := upload(t, c, img)
	other := upload(t, c, standin.NewImage(t, "s390x", standin.File{Name: "function", Content: "x"}))
	escape := upload(t, c, standin.NewImage(t, "amd64", standin.File{Name: "../../escape", Content: "x"}))
	lacking := image(t, "two")
	manifest := lacking.Blobs[lacking.Digest]
	if err := c.PutBlob(t.Context(), lacking.Digest, bytes.NewReader(manifest), int64(len(manifest))); err != nil {
		t.Fatal(err)
	}
	absent := "sha256:" + strings.Repeat("0", 64)
	const gib = functions.GiB
	for name, q := range map[string]functions.Quota{
		"full": {Functions: 1}, "small": {Memory: 64 * functions.MiB},
	} {
		q.Namespace = name
		if _, err := c.SetQuota(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	mustDeploy(t, c, functions.Ref{Namespace: "full", Name: "one"}, v1.DeployRequest{Digest: digest})

	for name, c2 := range map[string]struct {
		ref  functions.Ref
		req  v1.DeployRequest
		code fault.Code
		says []string
	}{
		"neither image nor digest": {hello, v1.DeployRequest{}, fault.CodeInvalidRequest, []string{"image"}},
		"image and digest":         {hello, v1.DeployRequest{Image: "nginx", Digest: digest}, fault.CodeInvalidRequest, nil},
		"a bad name":               {functions.Ref{Namespace: "default", Name: "Bad_Name"}, v1.DeployRequest{Digest: digest}, fault.CodeInvalidRequest, []string{"Bad_Name"}},
		"no digest":                {hello, v1.DeployRequest{Digest: "sha256:xyz"}, fault.CodeInvalidRequest, []string{"sha256:xyz"}},
		"nothing uploaded":         {hello, v1.DeployRequest{Digest: absent}, fault.CodeInvalidArtifact, []string{"not uploaded"}},
		"parts missing":            {hello, v1.DeployRequest{Digest: lacking.Digest}, fault.CodeInvalidArtifact, nil},
		"another architecture":     {hello, v1.DeployRequest{Digest: other}, fault.CodeInvalidArtifact, []string{"s390x", "amd64"}},
		"a path that escapes":      {hello, v1.DeployRequest{Digest: escape}, fault.CodeInvalidArtifact, []string{"escape"}},
		"memory above the node": {
			hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Limits: functions.Limits{Memory: 3 * gib}}},
			fault.CodeInvalidSpec, []string{"memory", "3072 MiB", "mat", "2048 MiB"},
		},
		"cpu above the node": {
			hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Limits: functions.Limits{CPU: 5000}}},
			fault.CodeInvalidSpec, []string{"cpu", "5000m", "mat", "4000m"},
		},
		"two fields at fault": {
			hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 70000, Concurrency: -1}},
			fault.CodeInvalidSpec, []string{"port", "concurrency"},
		},
		"too many functions": {functions.Ref{Namespace: "full", Name: "two"}, v1.DeployRequest{Digest: digest}, fault.CodeQuotaExceeded, []string{"full", "1"}},
		"above the quota":    {functions.Ref{Namespace: "small", Name: "one"}, v1.DeployRequest{Digest: digest}, fault.CodeQuotaExceeded, []string{"memory", "small"}},
		"a registry that is not there": {
			hello, v1.DeployRequest{Image: "127.0.0.1:1/team/x:1"}, fault.CodeUnavailable, []string{"127.0.0.1:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Deploy(t.Context(), c2.ref, c2.req)
			fails(t, err, c2.code, c2.says...)
		})
	}
	fns, err := c.Functions(t.Context(), "")
	if err != nil || len(fns) != 1 {
		t.Errorf("refused deploys left %+v, %v", fns, err)
	}
	// One that is there may be deployed again under a full quota.
	mustDeploy(t, c, functions.Ref{Namespace: "full", Name: "one"}, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 9000}})

	s.Scheduler.Silence()
	_, err = c.Deploy(t.Context(), hello, v1.DeployRequest{Digest: digest})
	fails(t, err, fault.CodeUnavailable, "scheduler")
}

// pending waits until the function has the candidate.
func pending(t *testing.T, s *standin.System, ref functions.Ref, not functions.RevisionID) functions.RevisionID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var id functions.RevisionID
	err := s.Bus.Functions().Watch(ctx, bus.FunctionKey(ref), func(e bus.Event[functions.Function]) {
		if e.Value.Candidate != "" && e.Value.Candidate != not {
			id = e.Value.Candidate
			cancel()
		}
	})
	if err != nil || id == "" {
		t.Fatalf("no candidate of %s: %v", ref, err)
	}
	return id
}

func TestDeployIsSuperseded(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	s.Scheduler.Set("hello", standin.Outcome{Hold: true})
	results := make(chan error, 3)
	deploy := func(port int) {
		_, err := c.Deploy(t.Context(), hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: port}})
		results <- err
	}
	go deploy(9001)
	first := pending(t, s, hello, "")
	go deploy(9002)
	second := pending(t, s, hello, first)
	fails(t, <-results, fault.CodeConflict, string(first), "another deploy")
	if r, err := c.Revision(t.Context(), hello, first); err != nil || r.State != v1.RevisionSuperseded {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Revision(t.Context(), hello, second); err != nil || r.State != functions.RevisionPending {
		t.Errorf("%+v, %v", r, err)
	}

	// The same content deployed twice at once is one deploy.
	go deploy(9002)
	s.Scheduler.Set("hello", standin.Outcome{})
	s.Scheduler.Settle(t.Context(), hello)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if fn, err := c.Function(t.Context(), hello); err != nil || fn.Live != second {
		t.Errorf("%+v, %v", fn, err)
	}

	// To deploy what is live takes a candidate's place, too.
	s.Scheduler.Set("hello", standin.Outcome{Hold: true})
	go deploy(9003)
	pending(t, s, hello, "")
	res := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 9002}})
	if !res.Live || res.Revision != second {
		t.Errorf("%+v", res)
	}
	fails(t, <-results, fault.CodeConflict, "another deploy")

	go deploy(9004)
	pending(t, s, hello, "")
	if err := c.Delete(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	fails(t, <-results, fault.CodeConflict, "deleted")
}

// A deploy that fails ends when the function's record has let go of the candidate, too, and the routes know: whoever looks or calls then finds it settled.
func TestAFailedDeployEndsWhenItIsSettled(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	s.Scheduler.Set("hello", standin.Outcome{Hold: true})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Deploy(t.Context(), hello, v1.DeployRequest{Digest: digest})
		ended <- err
	}()
	id := pending(t, s, hello, "")
	rev, _, err := s.Bus.Revisions().Get(t.Context(), bus.RevisionKey(hello, id))
	if err != nil {
		t.Fatal(err)
	}
	rev.State, rev.Reason = functions.RevisionFailed, "exited with code 1"
	if _, err := s.Bus.Revisions().Put(t.Context(), bus.RevisionKey(hello, id), rev); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended while its revision was still the candidate: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	fn, at, err := s.Bus.Functions().Get(t.Context(), bus.FunctionKey(hello))
	if err != nil {
		t.Fatal(err)
	}
	fn.Candidate = ""
	if at, err = s.Bus.Functions().Update(t.Context(), bus.FunctionKey(hello), fn, at); err != nil {
		t.Fatal(err)
	}
	fails(t, <-ended, fault.CodeFunctionNotReady, "exited with code 1")
	if s.Routes.Waited() != at || s.Routes.Applied() < at {
		t.Errorf("waited for revision %d of the routes, want %d", s.Routes.Waited(), at)
	}
}

func TestClientThatLeavesUndoesNothing(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	s.Scheduler.Set("hello", standin.Outcome{Hold: true})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.Deploy(ctx, hello, v1.DeployRequest{Digest: digest})
		left <- err
	}()
	rev := pending(t, s, hello, "")
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.Scheduler.Set("hello", standin.Outcome{})
	s.Scheduler.Settle(t.Context(), hello)
	if fn, err := c.Function(t.Context(), hello); err != nil || fn.Live != rev {
		t.Errorf("%+v, %v", fn, err)
	}
}

func TestDeployDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{API: api.Config{DeployTimeout: 10 * time.Millisecond}})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	s.Scheduler.Set("hello", standin.Outcome{Hold: true})
	req := v1.DeployRequest{Digest: digest, Config: functions.Config{Readiness: functions.Readiness{Timeout: functions.Duration(100 * time.Millisecond)}}}
	_, err := c.Deploy(t.Context(), hello, req)
	fails(t, err, fault.CodeStartTimeout, "110ms", "tatami explain hello")
	req.NoWait, req.Config.Port = true, 9000
	res := mustDeploy(t, c, hello, req)
	if res.Live || !res.Changed {
		t.Errorf("without waiting: %+v", res)
	}
	if fn, err := c.Function(t.Context(), hello); err != nil || fn.Candidate != res.Revision {
		t.Errorf("%+v, %v", fn, err)
	}
}

func TestOldRevisionsGo(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	var all []functions.RevisionID
	for n := range functions.MaxRevisions + 5 {
		res := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 9000 + n}})
		all = append(all, res.Revision)
	}
	fn, err := c.Function(t.Context(), hello)
	if err != nil || !slices.Equal(fn.Revisions, all[5:]) {
		t.Errorf("kept %v, want %v; %v", fn.Revisions, all[5:], err)
	}
	records, err := s.Bus.Revisions().List(t.Context(), bus.RevisionsOf(hello))
	if err != nil || len(records) != functions.MaxRevisions {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	fails(t, c.Delete(t.Context(), hello), fault.CodeFunctionNotFound, "hello", "tatami fn ls")
	digest := upload(t, c, image(t, "one"))
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest})
	before := s.Routes.Applied()
	if err := c.Delete(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	if s.Routes.Waited() <= before || s.Routes.Applied() <= before {
		t.Error("answered before the routes knew of it")
	}
	_, err := c.Function(t.Context(), hello)
	fails(t, err, fault.CodeFunctionNotFound)
	if records, err := s.Bus.Revisions().List(t.Context(), ""); err != nil || len(records) != 0 {
		t.Errorf("revisions are left: %v, %v", records, err)
	}
	res := mustDeploy(t, c, hello, v1.DeployRequest{Digest: digest})
	if !res.Changed || res.Previous != "" {
		t.Errorf("deployed again: %+v", res)
	}
}

// Many deploys of several functions at the same time leave every function live, on one of its revisions.
func TestConcurrentDeploys(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	digest := upload(t, c, image(t, "one"))
	const fns, each = 4, 5
	errs := make(chan error, fns*each)
	for f := range fns {
		for n := range each {
			go func() {
				ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("fn-%d", f)}
				_, err := c.Deploy(t.Context(), ref, v1.DeployRequest{Digest: digest, Config: functions.Config{Port: 9000 + n}})
				errs <- err
			}()
		}
	}
	for range fns * each {
		if err := <-errs; err != nil && !fault.Is(err, fault.CodeConflict) {
			t.Error(err)
		}
	}
	all, err := c.Functions(t.Context(), "default")
	if err != nil || len(all) != fns {
		t.Fatalf("%d functions, %v", len(all), err)
	}
	for _, f := range all {
		if f.Live == "" || f.Candidate != "" {
			t.Errorf("%s: live %q, candidate %q", f.Name, f.Live, f.Candidate)
		}
	}
}

// An image that was found good is not read again, but all of it must still be there.
func TestAnImageThatLostALayerIsRefused(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	img := image(t, "one")
	digest := upload(t, c, img)
	for _, name := range []string{"first", "again"} {
		ref := functions.Ref{Namespace: "default", Name: name}
		mustDeploy(t, c, ref, v1.DeployRequest{Digest: digest})
		fn, err := c.Function(t.Context(), ref)
		if err != nil || fn.Current.Artifact.Digest != digest || fn.Current.Artifact.Architecture != "amd64" || fn.Current.Artifact.Size == 0 {
			t.Errorf("%s: %+v, %v", name, fn.Current, err)
		}
	}
	for d := range img.Blobs {
		if d == digest {
			continue
		}
		if err := s.Bus.Artifacts().Delete(t.Context(), bus.ArtifactObject(d)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Deploy(t.Context(), functions.Ref{Namespace: "default", Name: "late"}, v1.DeployRequest{Digest: digest})
	fails(t, err, fault.CodeInvalidArtifact)
}
