package functions

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// WebhookSource takes what is posted to /hooks/NAME[.NAMESPACE] and is signed with a secret. The same body is the same event.
type WebhookSource struct {
	// Style is how requests are signed: StyleGitHub or StyleStripe.
	Style string `json:"style"`
	// Secret says where the server finds the secret; the API never shows what is there.
	Secret SecretRef `json:"secret"`
	// Tolerance is how far the time of a signature may be from now, where the style has one. Default 5m, at most 1h.
	Tolerance Duration `json:"tolerance,omitempty"`
}

// SecretRef names a place on the server that holds a secret. Exactly one field is set.
type SecretRef struct {
	// File is the absolute path of a file of at most 4 KiB, each of whose lines is a secret that is good: two while one replaces the other.
	File string `json:"file,omitempty"`
	// Env is an environment variable of the server whose name begins with SecretPrefix.
	Env string `json:"env,omitempty"`
}

// SecretPrefix begins the names of the environment variables that may hold secrets of triggers and destinations.
const SecretPrefix = "TATAMI_SECRET_"

// How requests are signed.
const (
	// StyleGitHub is HMAC-SHA256 of the body in the header X-Hub-Signature-256.
	StyleGitHub = "github"
	// StyleStripe is HMAC-SHA256 of a time and the body in the header Stripe-Signature.
	StyleStripe = "stripe"
)

// DefaultTolerance is how far the time of a signature may be from now.
const DefaultTolerance = Duration(5 * time.Minute)

const maxTolerance = time.Hour

func (w *WebhookSource) problem() *fault.Error {
	switch {
	case !slices.Contains([]string{StyleGitHub, StyleStripe}, w.Style):
		return badTrigger("webhook.style", "%.40q is neither %s nor %s", w.Style, StyleGitHub, StyleStripe)
	case w.Tolerance < 0 || w.Tolerance.Std() > maxTolerance:
		return badTrigger("webhook.tolerance", "%s is not between 0s and %s", w.Tolerance, Duration(maxTolerance))
	}
	return w.Secret.problem("webhook.secret")
}

// problem returns what is wrong with the reference, which stands at a field.
func (s SecretRef) problem(at string) *fault.Error {
	switch {
	case (s.File == "") == (s.Env == ""):
		return badTrigger(at, "name either a file or an environment variable of the server")
	case s.File != "" && (!filepath.IsAbs(s.File) || filepath.Clean(s.File) != s.File || strings.ContainsRune(s.File, 0)):
		return badTrigger(at+".file", "%.80q is no absolute path without detours", s.File)
	case s.Env != "" && !strings.HasPrefix(s.Env, SecretPrefix):
		return badTrigger(at+".env", "%.80q does not begin with %s", s.Env, SecretPrefix)
	}
	return nil
}
