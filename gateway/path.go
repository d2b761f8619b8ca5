package gateway

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// rawPath is the path of the request as the client wrote it.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath()
}

// splitFunction cuts an escaped path behind prefix, which ends in '/', into the function's name and the path that belongs to the
// function. It is false where there is no name. Whether the name is one is for others to say.
func splitFunction(path, prefix string) (functions.Ref, string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return functions.Ref{}, "", false
	}
	name, below := rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		name, below = rest[:i], rest[i:]
	}
	if strings.IndexByte(name, '%') >= 0 {
		var err error
		if name, err = url.PathUnescape(name); err != nil {
			return functions.Ref{}, "", false
		}
	}
	if name == "" {
		return functions.Ref{}, "", false
	}
	ns := functions.DefaultNamespace
	if i := strings.IndexByte(name, '.'); i >= 0 {
		name, ns = name[:i], name[i+1:]
	}
	return functions.Ref{Namespace: ns, Name: name}, below, true
}

// splitHost reads the function's name from a host below the domain; below is false for a host that is not.
func splitHost(host, domain string) (ref functions.Ref, below bool) {
	if domain == "" {
		return functions.Ref{}, false
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	at := len(host) - len(domain) - 1
	if at < 0 || host[at] != '.' || !strings.EqualFold(host[at+1:], domain) {
		return functions.Ref{}, false
	}
	name, ns, _ := strings.Cut(strings.ToLower(host[:at]), ".")
	return functions.Ref{Namespace: ns, Name: name}, true
}
