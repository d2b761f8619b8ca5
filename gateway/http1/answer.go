package http1

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer writes the answer to a request as net/http's own server does: a short body gets its length, one of unknown length goes in chunks,
// trailers follow it.
type answer struct {
	c      *conn
	w      *work
	header http.Header
	status int
	// length is what the handler said of the body's length, -1 where it said nothing; written is what came of it.
	length, written int64
	// said: WriteHeader was called, and the header is in out. framed: the head is whole.
	said, framed bool
	// typed, dated say that the handler gave the header of that name, trailing that trailers may follow the body.
	typed, dated     bool
	trailing         bool
	chunked, closing bool
	fullDuplex       bool
	trailers         []string
	keys             []string
	out, held        []byte
	// err is what writing to the client failed with.
	err error
}

func (a *answer) reset(c *conn, w *work) {
	clear(a.header)
	*a = answer{
		c: c, w: w, header: a.header, length: -1, closing: w.req.Close, trailers: a.trailers[:0], keys: a.keys[:0], out: a.out[:0], held: a.held[:0],
	}
}

// Header is the header that WriteHeader sends, and the trailers after that.
func (a *answer) Header() http.Header { return a.header }

// SetReadDeadline is for http.ResponseController.
func (a *answer) SetReadDeadline(t time.Time) error { return a.c.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (a *answer) SetWriteDeadline(t time.Time) error { return a.c.SetWriteDeadline(t) }

// EnableFullDuplex lets the answer begin before the request's body was read.
func (a *answer) EnableFullDuplex() error {
	a.fullDuplex = true
	return nil
}

// bodyAllowed reports whether an answer of the status has a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// bodiless reports whether nothing follows the head.
func (a *answer) bodiless() bool { return a.w.req.Method == http.MethodHead || !bodyAllowed(a.status) }

// WriteHeader takes the status and the header over; a status of 1xx is sent at once, and another one may follow.
func (a *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if a.said {
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		a.statusLine(status)
		a.fields(true)
		a.out = append(a.out, "\r\n"...)
		a.send()
		return
	}
	a.said, a.status = true, status
	a.statusLine(status)
	a.fields(false)
}

// Pass is WriteHeader with an ordinary answer's fields, which go before what the handler has set of the same name. What they do not say of the body's
// type is not guessed.
func (a *answer) Pass(status int, fields []Field) {
	a.said, a.status, a.typed = true, status, true
	a.statusLine(status)
	for _, f := range fields {
		switch f.Name {
		case "Content-Length":
			a.declared(f.Value)
			continue
		case "Connection":
			continue
		case "Date":
			a.dated = true
		}
		a.out = append(append(append(append(a.out, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	if len(a.header) > 0 {
		for _, f := range fields {
			delete(a.header, f.Name)
		}
		a.fields(false)
	}
}

func (a *answer) statusLine(status int) {
	b := strconv.AppendInt(append(a.out, "HTTP/1.1 "...), int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(status), 10)
	}
	a.out = append(b, "\r\n"...)
}

// fields writes the handler's header, but for what belongs to the connection or to the body's framing: that is settled by frame.
func (a *answer) fields(informational bool) {
	a.keys = a.keys[:0]
	for k := range a.header {
		a.keys = append(a.keys, k)
	}
	slices.Sort(a.keys)
	for _, k := range a.keys {
		vv := a.header[k]
		switch k {
		case "Content-Length":
			if !informational && len(vv) > 0 {
				a.declared(vv[0])
			}
			continue
		case "Transfer-Encoding":
			continue
		}
		if !informational {
			switch k {
			case "Connection":
				if len(vv) > 0 && strings.EqualFold(vv[0], "close") {
					a.closing = true
				}
				continue
			case "Content-Type":
				if a.typed = true; a.status == http.StatusNotModified {
					continue
				}
			case "Date":
				a.dated = len(vv) > 0
			case "Trailer":
				a.trailing = a.trailing || len(vv) > 0
				a.announced(vv)
			}
			if strings.HasPrefix(k, http.TrailerPrefix) {
				a.trailing = true
				continue
			}
		}
		for _, v := range vv {
			a.out = appendField(a.out, k, v)
		}
	}
}

// declared takes over what the handler says of the body's length; what is no number is left out.
func (a *answer) declared(v string) {
	if n, ok := bodyLength(strings.TrimSpace(v)); ok {
		a.length = n
	}
}

// announced notes the trailers that the handler will set.
func (a *answer) announced(vv []string) {
	for _, v := range vv {
		for name := range strings.SplitSeq(v, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); {
			case name == "", strings.HasPrefix(name, "If-"), slices.Contains(notTrailers, name):
			default:
				a.trailers = append(a.trailers, name)
			}
		}
	}
}

// notTrailers are headers that have no meaning behind a body (RFC 7230, 4.1.2), as net/http lists them.
var notTrailers = []string{
	"Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Expect", "Host", "Keep-Alive",
	"Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Range", "Realm", "Te", "Trailer", "Transfer-Encoding",
	"Www-Authenticate",
}

// appendField appends a line of the header. A value cannot end its line, and what is no name is left out.
func appendField(b []byte, k, v string) []byte {
	if k == "" || !isToken(k) {
		return b
	}
	b = append(append(b, k...), ": "...)
	at := len(b)
	b = append(b, strings.Trim(v, " \t\r\n")...)
	for i := at; i < len(b); i++ {
		if b[i] == '\n' || b[i] == '\r' {
			b[i] = ' '
		}
	}
	return append(b, "\r\n"...)
}

func isToken(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&inName == 0 && strings.IndexByte("!#$%&'*+.^`|~", s[i]) < 0 {
			return false
		}
	}
	return true
}

// frame ends the head: it settles how the body's end is told and whether the connection goes on. All says that held is the whole body.
func (a *answer) frame(all bool) {
	a.framed = true
	if all && !a.trailing && a.length < 0 && bodyAllowed(a.status) && (a.w.req.Method != http.MethodHead || len(a.held) > 0) {
		a.length = int64(len(a.held))
	}
	a.closing = a.closing || a.c.s.leaving.Load()
	// Clients that send all of a request before they read the answer would wait for us, and we for them.
	if a.w.req.ContentLength > 0 && !a.closing && !a.fullDuplex && !a.w.body.discard() {
		a.closing = true
	}
	if bodyAllowed(a.status) && !a.typed && len(a.held) > 0 && len(a.header["Content-Encoding"]) == 0 {
		a.out = appendField(a.out, "Content-Type", http.DetectContentType(a.held))
	}
	if !a.dated {
		a.out = append(append(append(a.out, "Date: "...), a.c.s.dateNow(time.Now())...), "\r\n"...)
	}
	switch {
	case a.length >= 0 && bodyAllowed(a.status):
		a.out = strconv.AppendInt(append(a.out, "Content-Length: "...), a.length, 10)
		a.out = append(a.out, "\r\n"...)
	case a.length < 0 && !a.bodiless():
		a.chunked = true
		a.out = append(a.out, "Transfer-Encoding: chunked\r\n"...)
	}
	if a.closing {
		a.out = append(a.out, "Connection: close\r\n"...)
	}
	a.out = append(a.out, "\r\n"...)
}

// Write writes a part of the body.
func (a *answer) Write(p []byte) (int, error) {
	if !a.said {
		a.WriteHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(a.status) {
		return 0, http.ErrBodyNotAllowed
	}
	a.written += int64(len(p))
	if a.length >= 0 && a.written > a.length {
		return 0, http.ErrContentLength
	}
	if !a.framed {
		if a.length < 0 && len(a.held)+len(p) <= heldSize {
			a.held = append(a.held, p...)
			return len(p), nil
		}
		if len(a.held) == 0 && !a.typed {
			// The type is told from the beginning of the body.
			a.held = append(a.held, p[:min(len(p), heldSize)]...)
			a.frame(false)
			a.held = a.held[:0]
		} else {
			a.frame(false)
			a.part(a.held)
			a.held = a.held[:0]
		}
	}
	a.part(p)
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// part passes a part of the body on.
func (a *answer) part(p []byte) {
	if len(p) == 0 || a.w.req.Method == http.MethodHead {
		return
	}
	if a.chunked {
		a.out = append(strconv.AppendInt(a.out, int64(len(p)), 16), "\r\n"...)
	}
	if len(p) <= cap(a.out)-len(a.out)-len("\r\n") {
		a.out = append(a.out, p...)
	} else {
		a.sendWith(p)
	}
	if a.chunked {
		a.out = append(a.out, "\r\n"...)
	}
}

// Flush sends what was written so far.
func (a *answer) Flush() { _ = a.FlushError() }

// FlushError is Flush for http.ResponseController.
func (a *answer) FlushError() error {
	if !a.said {
		a.WriteHeader(http.StatusOK)
	}
	if !a.framed {
		a.frame(false)
		a.part(a.held)
		a.held = a.held[:0]
	}
	a.send()
	return a.err
}

// send writes out to the client.
func (a *answer) send() {
	if a.err == nil && len(a.out) > 0 {
		_, a.err = a.c.sock.Write(a.out)
	}
	a.shrink()
}

// sendWith writes out and p to the client together.
func (a *answer) sendWith(p []byte) {
	if a.err == nil {
		bufs := net.Buffers{a.out, p}
		_, a.err = bufs.WriteTo(a.c.nc)
	}
	a.shrink()
}

// shrink empties out. A head that was longer than usual does not stay.
func (a *answer) shrink() {
	if cap(a.out) > 2*outSize {
		a.out = make([]byte, 0, outSize)
	}
	a.out = a.out[:0]
}

// finish sends the rest of the answer and reports whether another request may follow.
func (a *answer) finish() bool {
	if !a.said {
		a.WriteHeader(http.StatusOK)
	}
	if !a.framed {
		a.frame(true)
		a.part(a.held)
	}
	if a.chunked {
		a.out = append(a.out, "0\r\n"...)
		a.trailer()
		a.out = append(a.out, "\r\n"...)
	}
	short := a.length >= 0 && !a.bodiless() && a.written != a.length
	a.send()
	unread := a.w.req.ContentLength > 0 && !a.w.body.discard()
	if unread && a.err == nil {
		a.c.linger()
	}
	return !a.closing && !short && !unread && a.err == nil
}

// trailer writes the trailers: those announced, and those that were set with the prefix.
func (a *answer) trailer() {
	for k, vv := range a.header {
		if name, ok := strings.CutPrefix(k, http.TrailerPrefix); ok {
			for _, v := range vv {
				a.out = appendField(a.out, name, v)
			}
		}
	}
	for _, k := range a.trailers {
		for _, v := range a.header[k] {
			a.out = appendField(a.out, k, v)
		}
	}
}

// dateText is the Date header of a second.
type dateText struct {
	second int64
	text   string
}

func (s *Server) dateNow(now time.Time) string {
	d := s.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}
