package invoke

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Headers of the platform's own.
const (
	HeaderInvocationID = "Tatami-Invocation-Id"
	headerServerTiming = "Server-Timing"
	ownPrefix          = "Tatami-"
)

// dropHop reports whether a request's header belongs to its connection, or is written from elsewhere. Keys are canonical.
func dropHop(k string) bool {
	switch k {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Expect", "Host":
		return true
	}
	return false
}

// dropOwn reports whether a header is the platform's to say.
func dropOwn(k string) bool {
	switch k {
	case "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Traceparent":
		return true
	}
	return strings.HasPrefix(k, ownPrefix)
}

// QueuedHeader returns what a queued invocation keeps of its request's header, in the form in which ServeFunction would send it on.
func QueuedHeader(r *http.Request) http.Header {
	named := namedByConnection(r.Header)
	out := make(http.Header, len(r.Header)+5)
	for k, vv := range r.Header {
		if !dropHop(k) && !dropOwn(k) && !slices.Contains(named, k) {
			out[k] = slices.Clone(vv)
		}
	}
	f := forwardingOf(r)
	prior := func(k string) []string {
		if slices.Contains(named, k) {
			return nil
		}
		return r.Header[k]
	}
	out.Set("Forwarded", strings.Join(append(slices.Clone(prior("Forwarded")), string(f.appendElement(nil))), ", "))
	out.Set("X-Forwarded-For", strings.Join(append(slices.Clone(prior("X-Forwarded-For")), cmp.Or(f.ip, "unknown")), ", "))
	out.Set("X-Forwarded-Proto", f.proto)
	if f.host != "" {
		out.Set("X-Forwarded-Host", f.host)
	}
	traced(out, r.Header["Traceparent"])
	return out
}

// traced gives a header the trace that the request belongs to, or one of its own.
func traced(out http.Header, given []string) {
	if validTraceparent(given) {
		out["Traceparent"] = []string{given[0]}
		return
	}
	out.Set("Traceparent", newTraceparent())
	delete(out, "Tracestate")
}

// MessageHeader is QueuedHeader for what came as a message, without a connection that could say who forwarded it. Keys are canonical.
func MessageHeader(h http.Header) http.Header {
	out := make(http.Header, len(h)+1)
	for k, vv := range h {
		if !dropHop(k) && !dropOwn(k) {
			out[k] = slices.Clone(vv)
		}
	}
	traced(out, h["Traceparent"])
	return out
}

// dropResponse is dropRequest for the other way.
func dropResponse(k string) bool {
	switch k {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(k, ownPrefix)
}

// namedByConnection lists the headers that Connection says belong to the connection, canonical; nil for the usual values.
func namedByConnection(h http.Header) []string {
	var named []string
	for _, v := range h["Connection"] {
		for tok := range strings.SplitSeq(v, ",") {
			switch tok = http.CanonicalHeaderKey(strings.TrimSpace(tok)); tok {
			case "", "Close", "Keep-Alive", "Upgrade":
			default:
				named = append(named, tok)
			}
		}
	}
	return named
}

// hasToken reports whether a comma-separated header holds the token, in any case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for tok := range strings.SplitSeq(v, ",") {
			tok, _, _ = strings.Cut(tok, ";")
			if strings.EqualFold(strings.TrimSpace(tok), token) {
				return true
			}
		}
	}
	return false
}

// UpgradeOf returns the protocol that a request asks to change to, or "". HTTP/2 in clear text is not offered that way.
func UpgradeOf(h http.Header) string {
	up := h["Upgrade"]
	if len(up) == 0 || !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	proto := strings.Join(up, ", ")
	if strings.EqualFold(proto, "h2c") {
		return ""
	}
	return proto
}

func headerSize(h http.Header) int {
	n := 0
	for k, vv := range h {
		for _, v := range vv {
			n += len(k) + len(v) + 4
		}
	}
	return n
}

// invocationID makes an id in the form of functions.NewInvocationID, cheaper: the id of a synchronous invocation is a name and no right
// to anything, since nothing is kept under it.
func (f *function) invocationID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	const chars = 26
	b := make([]byte, 0, 64)
	b = append(b, f.idPrefix...)
	a, c, d := rand.Uint64(), rand.Uint64(), rand.Uint64()
	for range chars / 2 {
		b = append(b, alphabet[a&31], alphabet[c&31])
		a, c = a>>5|d<<59, c>>5
		d >>= 5
	}
	return string(b)
}

// validTraceparent reports whether a W3C trace context header can be passed on.
func validTraceparent(vv []string) bool {
	if len(vv) != 1 {
		return false
	}
	v := vv[0]
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || v[:2] == "ff" || len(v) > 55 && (v[:2] == "00" || v[55] != '-') {
		return false
	}
	trace, span := v[3:35], v[36:52]
	return isHex(v[:2]) && isHex(trace) && isHex(span) && isHex(v[53:55]) && strings.Trim(trace, "0") != "" && strings.Trim(span, "0") != ""
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// newTraceparent begins a trace that nobody records.
func newTraceparent() string {
	var ids [24]byte
	for i := 0; i < len(ids); i += 8 {
		binary.LittleEndian.PutUint64(ids[i:], rand.Uint64())
	}
	trace, span := ids[:16], ids[16:]
	// Neither may be all zeros.
	trace[0] |= 1
	span[0] |= 1
	b := hex.AppendEncode(append(make([]byte, 0, 55), "00-"...), trace)
	b = hex.AppendEncode(append(b, '-'), span)
	return string(append(b, "-00"...))
}

// forwarding is what a request is told about its client.
type forwarding struct {
	ip, host, proto string
}

func forwardingOf(r *http.Request) forwarding {
	f := forwarding{host: r.Host, proto: "http"}
	if r.TLS != nil {
		f.proto = "https"
	}
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		f.ip, _, _ = strings.Cut(ip, "%")
	}
	return f
}

// appendElement appends one element of the Forwarded header (RFC 7239).
func (f forwarding) appendElement(b []byte) []byte {
	b = append(b, "for="...)
	switch {
	case f.ip == "":
		b = append(b, "unknown"...)
	case strings.Contains(f.ip, ":"):
		b = append(append(append(b, `"[`...), f.ip...), `]"`...)
	default:
		b = append(b, f.ip...)
	}
	if f.host != "" && !strings.ContainsAny(f.host, `"\`) {
		b = append(append(append(b, `;host="`...), f.host...), '"')
	}
	return append(append(b, ";proto="...), f.proto...)
}

// hostOf is what a function is called when the request has no Host.
func hostOf(ref functions.Ref) string { return ref.Name + "." + ref.Namespace }
