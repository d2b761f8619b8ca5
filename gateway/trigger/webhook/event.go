package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// headerDelivery names a delivery of GitHub's, headerEvent its kind. Neither is signed.
const (
	headerDelivery = "X-GitHub-Delivery"
	headerEvent    = "X-GitHub-Event"
)

// Event makes an event of a request whose signature is good. Its type is webhook, with the kind that the request gives itself.
func Event(t *functions.Trigger, h http.Header, body []byte, now time.Time) functions.Event {
	sum := sha256.Sum256(body)
	ev := functions.Event{
		ID: hex.EncodeToString(sum[:]), Source: "/tatami/triggers/" + t.Namespace + "/" + t.Name, Type: "webhook", Time: now.UTC(),
		DataContentType: h.Get("Content-Type"), Data: body,
	}
	kind := h.Get(headerEvent)
	if t.Webhook.Style == functions.StyleStripe {
		var in struct {
			Type string `json:"type"`
		}
		// What is no JSON has no kind.
		_ = json.Unmarshal(body, &in)
		kind = in.Type
	}
	if isKind(kind) {
		ev.Type += "." + t.Webhook.Style + "." + kind
	}
	if id := h.Get(headerDelivery); isKind(id) {
		ev.Extensions = map[string]string{"delivery": id}
	}
	return ev
}

// isKind reports whether s is a word that may be part of an event's type.
func isKind(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}
