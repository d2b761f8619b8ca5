package functions

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// HeaderCallback asks for the record of an invocation to be sent to a URL when it has ended.
const HeaderCallback = "Tatami-Callback"

// EndCallback is the end whose deliveries go where the caller said.
const EndCallback = "callback"

// maxCallbacks is how many beginnings of URLs a function allows at most.
const maxCallbacks = 16

// Callbacks are the URLs to which whoever hands an invocation over may have its record sent. Without any, nobody may: the request comes from this
// server then, which may reach more than the caller does.
type Callbacks struct {
	// Allow is what such a URL may be: of one of these schemes, hosts and ports, with the path or below it. At most 16.
	Allow []string `json:"allow,omitempty"`
	// Secret signs what goes there; empty: it is not signed.
	Secret SecretRef `json:"secret,omitzero"`
}

// problem returns what is wrong with the callbacks, which stand at a field; nil for nothing.
func (c Callbacks) problem(at string) *fault.Error {
	if len(c.Allow) > maxCallbacks {
		return badTrigger(at+".allow", "%d are more than %d", len(c.Allow), maxCallbacks)
	}
	for i, s := range c.Allow {
		if u, err := callbackURL(s); err != nil || u.RawQuery != "" {
			return badTrigger(fmt.Sprintf("%s.allow[%d]", at, i), "%.80q is no URL of http or https with a host and a plain path, without user, query and fragment", s)
		}
	}
	switch {
	case c.Secret == SecretRef{}:
		return nil
	case len(c.Allow) == 0:
		return badTrigger(at+".secret", "it is nothing without %s.allow", at)
	}
	return c.Secret.problem(at + ".secret")
}

// Check reports whether the record of an invocation may go to a URL: nil, or why not.
func (c Callbacks) Check(raw string) error {
	u, err := callbackURL(raw)
	if err != nil {
		return fault.New(fault.CodeInvalidRequest, "%s: %v", HeaderCallback, err).WithField(HeaderCallback)
	}
	for _, s := range c.Allow {
		if a, err := callbackURL(s); err == nil && origin(a) == origin(u) && below(u.Path, a.Path) {
			return nil
		}
	}
	return fault.New(fault.CodeDenied, "%s: the function allows no callback to %.200q", HeaderCallback, u.Scheme+"://"+u.Host+u.Path).WithField(HeaderCallback).
		WithHint("the URLs it allows are queue.callbacks.allow in tatami.yaml")
}

// callbackURL reads a URL that means the same to everybody: no user, no fragment, no detours and nothing escaped in its path.
func callbackURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > maxURL || !visible(raw):
		return nil, fmt.Errorf("it is no URL of at most %d visible bytes", maxURL)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("it is no URL of http or https with a host")
	case u.User != nil || u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, fmt.Errorf("it has a user or a fragment")
	case strings.ContainsAny(raw, "\\") || strings.ContainsRune(u.EscapedPath(), '%'):
		return nil, fmt.Errorf("its path has something escaped")
	case u.Path != "" && strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(path.Clean(u.Path), "/"):
		return nil, fmt.Errorf("its path has detours")
	}
	return u, nil
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// origin is the scheme, host and port of a URL.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// below reports whether a path is another one or lies below it.
func below(p, top string) bool {
	top = strings.TrimSuffix(top, "/")
	return strings.TrimSuffix(p, "/") == top || strings.HasPrefix(p, top+"/")
}
