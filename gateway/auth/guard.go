package auth

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Middleware lets through what may use the control API. How the request came is told by its listener's address; one that tells none is
// treated as TCP.
func (a *Auth) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if overUnix(r) {
			next.ServeHTTP(w, r)
			return
		}
		life := a.life() // before the token is compared: none slips through that ends meanwhile
		if err := a.admit(r); err != nil {
			a.refuse(w, r, err)
			return
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func overUnix(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addr.Network() == "unix"
}

func (a *Auth) admit(r *http.Request) error {
	if !a.hostAllowed(r.Host) {
		return fault.New(fault.CodeDenied, "the control API is not called by the name %q", clip(r.Host)).
			WithHint("call it by its address, such as 127.0.0.1, or as localhost")
	}
	if o := r.Header.Get("Origin"); o != "" && !sameHost(o, r.Host) {
		return fault.New(fault.CodeDenied, "the control API takes no requests from pages of %q", clip(o))
	}
	if a.public(r.URL.Path) {
		return nil
	}
	valid, present := a.bearer(r)
	switch {
	case valid:
		return nil
	case present:
		return fault.New(fault.CodeUnauthenticated, "the token is not valid").
			WithHint("on the server's machine, `tatami token show` prints the one that is")
	case !a.hasSession(r):
		return fault.New(fault.CodeUnauthenticated, "the control API needs a token over TCP").
			WithHint("give --token-file or TATAMI_TOKEN; on the server's machine, `tatami token show` prints the token")
	case !ownPage(r):
		return fault.New(fault.CodeDenied, "a dashboard session is for the dashboard's own page")
	}
	return nil
}

// hostAllowed refuses names that a foreign name server could point here (DNS rebinding). An address cannot be pointed anywhere.
func (a *Auth) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "localhost" || slices.ContainsFunc(a.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// sameHost reports whether the origin is the host itself, port included. "null" is none.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// ownPage reports whether a request that a cookie vouches for comes from the dashboard, or from a person who opened it. Every browser
// that sends a cookie also says where the request comes from; one that does not say it must send its Origin.
func ownPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		safe := r.Method == http.MethodGet || r.Method == http.MethodHead
		return safe || r.Header.Get("Origin") != "" // which admit compared already
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func (a *Auth) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if fault.KindOf(err) == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tatami"`)
		if strings.HasPrefix(r.URL.Path, "/ui") && strings.Contains(r.Header.Get("Accept"), "text/html") {
			page(w, http.StatusUnauthorized, "The dashboard is for those who may use the control API.")
			return
		}
	}
	problem.Write(w, r, err)
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
