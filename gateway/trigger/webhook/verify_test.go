package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestGitHub(t *testing.T) {
	t.Parallel()
	src := &functions.WebhookSource{Style: functions.StyleGitHub}
	// The example of GitHub's own documentation.
	const known = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	body := []byte("Hello, World!")
	secrets := [][]byte{[]byte("old"), []byte("It's a Secret to Everybody")}
	for header, good := range map[string]bool{
		"sha256=" + known: true, "sha256=" + strings.ToUpper(known): true, known: false, "sha1=" + known: false, "sha256=": false, "": false,
		"sha256=" + known[:62]: false, "sha256=" + sign("old", "Hello, World"): false, "sha256=" + sign("old", "Hello, World!"): true,
	} {
		err := Verify(src, secrets, http.Header{headerGitHub: {header}}, body, time.Now())
		if good != (err == nil) || err != nil && !fault.Is(err, fault.CodeUnauthenticated) {
			t.Errorf("%q: %v", header, err)
		}
	}
}

func TestStripe(t *testing.T) {
	t.Parallel()
	src := &functions.WebhookSource{Style: functions.StyleStripe}
	now := time.Unix(1_800_000_000, 0)
	header := func(at time.Time, secret string) string {
		return fmt.Sprintf("t=%d,v1=%s,v0=00", at.Unix(), sign(secret, fmt.Sprintf("%d.body", at.Unix())))
	}
	good := header(now, "s")
	for value, ok := range map[string]bool{
		good:                                 true,
		"v1=00," + good:                      true,
		header(now.Add(-5*time.Minute), "s"): true,
		header(now.Add(-5*time.Minute-time.Second), "s"):         false,
		header(now.Add(5*time.Minute+time.Second), "s"):          false,
		header(now, "other"):                                     false,
		strings.Replace(good, "t=1800000000", "t=1800000001", 1): false,
		"t=1800000000," + good:                                   false,
		strings.Replace(good, "t=1800000000,", "", 1):            false,
		"t=1800000000":                 false,
		"t=-1,v1=00":                   false,
		"t=99999999999999999999,v1=00": false,
		"t=1800000000" + strings.Repeat(",v1=00", 17): false,
		"": false,
	} {
		err := Verify(src, [][]byte{[]byte("s")}, http.Header{headerStripe: {value}}, []byte("body"), now)
		if ok != (err == nil) || err != nil && !fault.Is(err, fault.CodeUnauthenticated) {
			t.Errorf("%q: %v", value, err)
		}
	}
	src.Tolerance = functions.Duration(time.Hour)
	if err := Verify(src, [][]byte{[]byte("s")}, http.Header{headerStripe: {header(now.Add(-time.Hour), "s")}}, []byte("body"), now); err != nil {
		t.Error(err)
	}
}

func FuzzStripe(f *testing.F) {
	f.Add("t=1,v1=00")
	f.Add("t=1,t=2, v1=zz,,v0")
	f.Fuzz(func(t *testing.T, s string) {
		at, sums, err := parseStripe(s)
		if err == nil && (at < 0 || at > maxTime || len(sums) == 0 || len(sums) > maxSignatures) {
			t.Errorf("%q is read as %d with %d signatures", s, at, len(sums))
		}
	})
}

func TestEvent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	tr := &functions.Trigger{Namespace: "ns", Name: "n", Webhook: &functions.WebhookSource{Style: functions.StyleGitHub}}
	ev := Event(tr, http.Header{"Content-Type": {"application/json"}, "X-Github-Event": {"push"}, "X-Github-Delivery": {"d-1"}}, []byte("{}"), now)
	if ev.Type != "webhook.github.push" || ev.Extensions["delivery"] != "d-1" || ev.Source != "/tatami/triggers/ns/n" || ev.Validate() != nil {
		t.Errorf("%+v", ev)
	}
	again := Event(tr, http.Header{"X-Github-Delivery": {"d-2"}}, []byte("{}"), now.Add(time.Hour))
	if again.ID != ev.ID || again.Type != "webhook" {
		t.Errorf("%+v", again)
	}
	tr.Webhook.Style = functions.StyleStripe
	if ev := Event(tr, nil, []byte(`{"type":"invoice.paid"}`), now); ev.Type != "webhook.stripe.invoice.paid" {
		t.Errorf("%+v", ev)
	}
	if ev := Event(tr, nil, []byte(`{"type":"a b"}`), now); ev.Type != "webhook" {
		t.Errorf("%+v", ev)
	}
}
