package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/tatami-faas/tatami/functions"
)

// calledKey holds the name by which a caller over TCP reached the control API.
type calledKey struct{}

// rememberHost keeps by which name the caller reached us: it may do so for the other listener, too.
func rememberHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "tcp" {
			r = r.WithContext(context.WithValue(r.Context(), calledKey{}, (&url.URL{Host: r.Host}).Hostname()))
		}
		next.ServeHTTP(w, r)
	})
}

// info is what the process knows of itself, with addresses that the caller can use.
func (a *API) info(ctx context.Context) Info {
	i := a.deps.Info()
	i.PublicURL, i.ControlURL = reachable(ctx, i.PublicURL), reachable(ctx, i.ControlURL)
	return i
}

// reachable is base as the caller can use it: by the caller's name for us over TCP, by this machine's loopback over the socket.
func reachable(ctx context.Context, base string) string {
	if host, _ := ctx.Value(calledKey{}).(string); host != "" {
		return named(base, host)
	}
	return LocalURL(base)
}

// LocalURL is base as it can be opened on this machine.
func LocalURL(base string) string { return named(base, "127.0.0.1") }

// named puts a host where a listener on all addresses, 0.0.0.0 or [::], has none that can be called.
func named(base, host string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort(host, u.Port())
	}
	return u.String()
}

func (a *API) functionURL(ctx context.Context, ref functions.Ref) string {
	base := a.info(ctx).PublicURL
	if base == "" {
		return ""
	}
	return base + "/fn/" + ref.String()
}
