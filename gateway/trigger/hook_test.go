package trigger_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// A signed request becomes one invocation, however often it is sent; any other does not get in.
func TestWebhook(t *testing.T) {
	t.Parallel()
	w := start(t)
	got := make(chan http.Header, 10)
	w.path.deploy("pushes", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }))
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := functions.Trigger{
		Name: "pushes", Function: "pushes", Webhook: &functions.WebhookSource{Style: functions.StyleGitHub, Secret: functions.SecretRef{File: file}},
		Filters: []functions.Filter{{Prefix: map[string]string{"type": "webhook.github.push"}}},
	}
	w.set(tr)
	post := func(path, body, secret, kind, delivery string) (*http.Response, v1.Emitted) {
		t.Helper()
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		resp, text := w.post(path, http.Header{
			"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}, "X-GitHub-Event": {kind}, "X-GitHub-Delivery": {delivery}, "Content-Type": {"application/json"},
		}, strings.NewReader(body))
		if strings.Contains(text, "hush") || strings.Contains(text, file) {
			t.Errorf("the answer tells the secret or where it is: %s", text)
		}
		var em v1.Emitted
		if err := json.Unmarshal([]byte(text), &em); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return resp, em
	}
	resp, first := post("/hooks/pushes", `{"n":1}`, "hush", "push", "a")
	if resp.StatusCode != http.StatusAccepted || first.ID == "" || resp.Header.Get("Location") != first.Location {
		t.Fatalf("%s %+v", resp.Status, first)
	}
	if h := mustGet(t, got); h.Get("Ce-Type") != "webhook.github.push" || h.Get("Ce-Delivery") != "a" {
		t.Errorf("%v", h)
	}
	// Recorded and sent again, under another delivery: nothing new.
	if resp, again := post("/hooks/pushes.default", `{"n":1}`, "hush", "push", "b"); resp.StatusCode != http.StatusAccepted || again.ID != first.ID {
		t.Errorf("%s %+v", resp.Status, again)
	}
	if resp, _ := post("/hooks/pushes", `{"n":2}`, "guess", "push", "c"); resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Tatami-Error") != "unauthenticated" {
		t.Errorf("%s", resp.Status)
	}
	if resp, em := post("/hooks/pushes", `{"n":3}`, "hush", "ping", "d"); resp.StatusCode != http.StatusAccepted || em.ID != "" {
		t.Errorf("a filtered one: %s %+v", resp.Status, em)
	}
	for _, path := range []string{"/hooks/nobody", "/hooks/pushes.other", "/hooks/Pushes", "/hooks/"} {
		if resp, _ := post(path, `{}`, "hush", "push", "e"); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	tr.Paused = true
	w.set(tr)
	if resp, _ := post("/hooks/pushes", `{"n":4}`, "hush", "push", "f"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("paused: %s", resp.Status)
	}
	w.ended(first.ID)
	if len(got) > 0 {
		t.Errorf("%v got in", <-got)
	}
}
