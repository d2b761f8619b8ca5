//go:build e2e

package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The record of what succeeded goes to a URL, signed; that of what failed to a function, whose own record goes to the same URL.
func TestDestinations(t *testing.T) {
	s := harness.Start(t)
	type delivery struct {
		path   string
		header http.Header
		body   string
	}
	got := make(chan delivery, 10)
	refuse := make(chan struct{})
	box := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		select {
		case <-refuse:
			w.WriteHeader(http.StatusGone)
		default:
			got <- delivery{r.URL.Path, r.Header.Clone(), string(body)}
		}
	}))
	defer box.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Deploy("report", "probe", "queue: {onSuccess: {url: "+box.URL+"}}\n")
	s.Deploy("probe", "probe", "queue: {retries: 0, onSuccess: {url: "+box.URL+", secret: {file: "+secret+"}}, onFailure: {function: report}, callbacks: {allow: ["+box.URL+"/jobs]}}\n")

	good := async(t, s, "probe/cat", "fine")
	d := <-got
	var rec status
	if err := json.Unmarshal([]byte(d.body), &rec); err != nil || rec.Body != "fine" || rec.State != "succeeded" || d.header.Get("Tatami-Of") != good {
		t.Errorf("%v %v %s", err, d.header, d.body)
	}
	at, sum, _ := strings.Cut(strings.TrimPrefix(d.header.Get("Tatami-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte("the word"))
	mac.Write([]byte(at + "." + d.body))
	if sum != hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signed %s", d.header.Get("Tatami-Signature"))
	}
	// Whoever knows the invocation's id does not get to see the delivery.
	if resp, body := s.Get("/invocations/" + d.header.Get("Tatami-Invocation-Id")); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s %s", resp.Status, body)
	}

	// The caller gets it, too, where the function allows that.
	handOver := func(callback string) *http.Response {
		resp, _ := s.Do("POST", "/async/probe/cat", "called", http.Header{"Tatami-Callback": {callback}})
		return resp
	}
	if resp := handOver(box.URL + "/elsewhere"); resp.StatusCode != http.StatusForbidden || resp.Header.Get("Tatami-Error") != "denied" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	called := handOver(box.URL + "/jobs/1").Header.Get("Tatami-Invocation-Id")
	paths := map[string]bool{}
	for range 2 {
		d := <-got
		paths[d.path] = true
		if d.header.Get("Tatami-Of") != called || !strings.Contains(d.body, "called") || d.header.Get("Tatami-Callback") != "" {
			t.Errorf("%v %s", d.header, d.body)
		}
	}
	if !paths["/jobs/1"] || len(paths) != 2 {
		t.Errorf("%v", paths)
	}

	bad := async(t, s, "probe/status?code=400", "no good")
	d = <-got
	second := d.header.Get("Tatami-Of")
	if d.header.Get("Tatami-Of-Function") != "report" || d.header.Get("Tatami-Depth") != "2" {
		t.Errorf("%v", d.header)
	}
	if st := result(t, s, second); st.State != "succeeded" || !strings.Contains(st.Body, bad) || !strings.Contains(st.Body, "dead") {
		t.Errorf("%+v", st)
	}

	close(refuse)
	async(t, s, "report/cat", "")
	var dead []v1.DeadLetter
	eventually(t, 30*time.Second, "what is refused is a dead letter of the deliveries", func() bool {
		list(t, s, &dead, "queue", "dead", "report@success")
		return len(dead) == 1
	})
	if dead[0].Reason != "the destination answered 410 Gone" || dead[0].Invocation.Of == "" {
		t.Errorf("%+v", dead[0])
	}
	s.Deploy("report", "probe", "queue: {onSuccess: {function: probe}}\n")
	if r := s.CLI("queue", "redrive", "report@success"); r.Exit == 0 || !strings.Contains(r.Stderr, "no destination") {
		t.Errorf("ended with %d: %s", r.Exit, r.Stderr)
	}
	s.Must("queue", "purge", "report", "--yes")
	if list(t, s, &dead, "queue", "dead", "report@success"); len(dead) != 0 {
		t.Errorf("%+v", dead)
	}
}
