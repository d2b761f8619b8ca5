package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// verdict is what the bytes of a connection are found to be.
type verdict uint8

const (
	// incomplete: it may become an ordinary request.
	incomplete verdict = iota
	ordinary
	// unusual is for net/http to judge.
	unusual
)

// The classes of bytes in a request's head. A byte without a class makes the request unusual.
const (
	inMethod = 1 << iota
	inPath
	inTarget
	inName
	inHost
	inValue
)

// classes holds the classes of each byte.
var classes = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		upper, digit := b >= 'A' && b <= 'Z', b >= '0' && b <= '9'
		letter := upper || b >= 'a' && b <= 'z'
		set := func(is bool, class uint8) {
			if is {
				t[c] |= class
			}
		}
		set(upper, inMethod)
		set(letter || digit || strings.IndexByte("-_.~$&+,/:;=@", b) >= 0, inPath)
		set(t[c]&inPath != 0 || strings.IndexByte("%?!'()*", b) >= 0, inTarget)
		set(letter || digit || b == '-' || b == '_', inName)
		set(letter || digit || strings.IndexByte("-_.:[]", b) >= 0, inHost)
		set(b >= ' ' && b != 0x7f, inValue)
	}
	return t
}()

func only(s string, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

// endOfHead ends a head: the end of its last line and an empty one.
var endOfHead = []byte("\r\n\r\n")

// head reads the head of a request from b, which holds what came so far, into w's request. It returns the head's length if it is ordinary.
func (w *work) head(b []byte) (int, verdict) {
	end := bytes.Index(b, endOfHead)
	if end < 0 {
		if hopeless(b) {
			return 0, unusual
		}
		return 0, incomplete
	}
	// Names and values are parts of one string.
	rest := string(b[:end+2])
	line, rest, ok := cutLine(rest)
	if !ok || !w.requestLine(line) {
		return 0, unusual
	}
	for rest != "" {
		var f Field
		if f, rest, ok = cutField(rest); !ok || !w.special(f.Name, f.Value) {
			return 0, unusual
		}
		if f.Name != "Host" {
			w.add(f.Name, f.Value)
		}
	}
	if w.req.Host == "" {
		return 0, unusual
	}
	return end + len(endOfHead), ordinary
}

// bodyLength reads a Content-Length; false for what is none, or longer than any body.
func bodyLength(value string) (int64, bool) {
	n, err := strconv.ParseUint(value, 10, 63)
	return int64(n), err == nil
}

// hopeless reports whether a head that has not ended cannot become an ordinary one.
func hopeless(b []byte) bool {
	for i, c := range b {
		switch {
		case c == '\n' && (i == 0 || b[i-1] != '\r'):
			return true
		case c < ' ' && c != '\r' && c != '\n' && c != '\t':
			return true
		}
	}
	return false
}

// cutLine cuts the first line off; false where it does not end in CR LF. A CR elsewhere has no class.
func cutLine(s string) (line, rest string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return "", "", false
	}
	return s[:i-1], s[i+1:], true
}

// cutField cuts the first line of a header off; false where it is odd.
func cutField(s string) (f Field, rest string, ok bool) {
	line, rest, ok := cutLine(s)
	if !ok {
		return Field{}, "", false
	}
	colon := strings.IndexByte(line, ':')
	if colon < 1 || !only(line[:colon], inName) {
		return Field{}, "", false
	}
	f = Field{canonical(line[:colon]), trimmed(line[colon+1:])}
	return f, rest, only(f.Value, inValue)
}

// trimmed cuts blanks off at both ends.
func trimmed(s string) string {
	for s != "" && blank(s[0]) {
		s = s[1:]
	}
	for s != "" && blank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

func (w *work) requestLine(line string) bool {
	const version = " HTTP/1.1"
	line, ok := strings.CutSuffix(line, version)
	if !ok {
		return false
	}
	method, target, ok := strings.Cut(line, " ")
	if !ok || method == "" || !only(method, inMethod) || method == http.MethodConnect || !only(target, inTarget) ||
		!strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return false
	}
	w.req.Method, w.req.RequestURI = method, target
	path, query, asked := strings.Cut(target, "?")
	if !only(path, inPath) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return false
		}
		w.url = *u
		return true
	}
	w.url = url.URL{Path: path, RawQuery: query, ForceQuery: asked && query == ""}
	return true
}

// canonical is the form of a header's name that net/http uses.
func canonical(name string) string {
	up := true
	for i := range len(name) {
		c := name[i]
		if up && c >= 'a' && c <= 'z' || !up && c >= 'A' && c <= 'Z' {
			return textproto.CanonicalMIMEHeaderKey(name)
		}
		up = c == '-'
	}
	return name
}

// special heeds the headers that say something of the connection or the body. It is false for those that make a request unusual.
func (w *work) special(name, value string) bool {
	switch name {
	case "Host":
		if w.req.Host != "" || value == "" || !only(value, inHost) {
			return false
		}
		w.req.Host = value
	case "Content-Length":
		n, ok := bodyLength(value)
		if !ok || len(w.header[name]) > 0 {
			return false
		}
		w.req.ContentLength = n
	case "Connection":
		if len(w.header[name]) > 0 {
			return false
		}
		w.req.Close = strings.EqualFold(value, "close")
		return w.req.Close || strings.EqualFold(value, "keep-alive")
	case "Transfer-Encoding", "Upgrade", "Expect", "Trailer", "Te", "Pragma", "Prefer", "Idempotency-Key", "Keep-Alive", "Proxy-Connection",
		"Http2-Settings":
		return false
	}
	return true
}
