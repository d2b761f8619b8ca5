package queue

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
)

// Differences names what differs between the two outputs: "state", "status", "body", or the name of a header, in this order.
func (r *Replayed) Differences() []string {
	out := []string{}
	if r.Before.State != r.Now.State {
		out = append(out, "state")
	}
	if r.Before.Status != r.Now.Status {
		out = append(out, "status")
	}
	if !bytes.Equal(r.Before.Body, r.Now.Body) || r.Before.Cut != r.Now.Cut {
		out = append(out, "body")
	}
	names := map[string]bool{}
	for _, h := range []http.Header{r.Before.Header, r.Now.Header} {
		for name := range h {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !passing(name) && !slices.Equal(r.Before.Header[name], r.Now.Header[name]) {
			out = append(out, name)
		}
	}
	return out
}

// passing reports whether a header differs from one answer to the next by itself.
func passing(name string) bool {
	switch name {
	case "Date", "Age", "Content-Length", "Server-Timing", "Traceparent", "Tracestate":
		return true
	}
	return false
}
