package invoke

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// outgoing is a request as it is written to an instance.
type outgoing struct {
	// req gives the method, and the trailers once its body has been read.
	req    *http.Request
	target string
	host   string
	header http.Header
	// named lists further headers that are not passed on.
	named []string
	// id is the invocation's, traceparent the trace's; each is written where it is set.
	id, traceparent string
	// attempt is the number of the attempt of the invocation that id names; 0 for none.
	attempt int
	forward *forwarding
	// trusted says that the header was made by the platform: nothing of it is dropped but what belongs to a connection.
	trusted bool
	upgrade string
	expect  bool
	body    io.Reader
	// length is the body's; -1 where it is not known. A body with trailers is sent in chunks whatever its length.
	length  int64
	chunked bool
	maxBody int64
}

// inlineBody is the longest body that is read whole before the answer is looked at.
const inlineBody = 64 << 10

func (o *outgoing) hasBody() bool { return o.body != nil }

// inline reports whether the body is sent by the goroutine that reads the answer.
func (o *outgoing) inline() bool { return !o.chunked && o.length <= inlineBody && !o.expect }

// replayable reports whether the request may be sent again when nobody knows whether it arrived.
func (o *outgoing) replayable() bool {
	if o.hasBody() {
		return false
	}
	switch o.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// drops reports whether a field of the header is not passed on.
func (o *outgoing) drops(k string) bool {
	return dropHop(k) || !o.trusted && dropOwn(k) || o.named != nil && slices.Contains(o.named, k) ||
		o.attempt != 0 && (k == HeaderInvocationID || k == HeaderAttempt)
}

func writeLine(w *bufio.Writer, k, v string) {
	_, _ = w.WriteString(k)
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(v)
	_, _ = w.WriteString("\r\n")
}

// writeHead writes everything up to the empty line. Errors stay in w until it is flushed.
func (o *outgoing) writeHead(w *bufio.Writer) {
	method := o.req.Method
	_, _ = w.WriteString(method)
	_ = w.WriteByte(' ')
	_, _ = w.WriteString(o.target)
	_, _ = w.WriteString(" HTTP/1.1\r\n")
	writeLine(w, "Host", o.host)
	for k, vv := range o.header {
		if o.drops(k) {
			continue
		}
		for _, v := range vv {
			writeLine(w, k, v)
		}
	}
	if o.forward != nil {
		o.writeForwarded(w)
	}
	if o.traceparent != "" {
		writeLine(w, "Traceparent", o.traceparent)
	}
	if o.id != "" {
		writeLine(w, HeaderInvocationID, o.id)
	}
	if o.attempt != 0 {
		_, _ = w.WriteString(HeaderAttempt + ": ")
		_, _ = w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(o.attempt), 10))
		_, _ = w.WriteString("\r\n")
	}
	if hasToken(o.header["Te"], "trailers") {
		writeLine(w, "Te", "trailers")
	}
	if o.upgrade != "" {
		writeLine(w, "Connection", "Upgrade")
		writeLine(w, "Upgrade", o.upgrade)
	}
	if o.expect {
		writeLine(w, "Expect", "100-continue")
	}
	switch {
	case o.chunked:
		writeLine(w, "Transfer-Encoding", "chunked")
		for k := range o.req.Trailer {
			if !dropHop(k) && !dropOwn(k) {
				writeLine(w, "Trailer", k)
			}
		}
	case o.hasBody():
		_, _ = w.WriteString("Content-Length: ")
		_, _ = w.Write(strconv.AppendInt(w.AvailableBuffer(), o.length, 10))
		_, _ = w.WriteString("\r\n")
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch || len(o.header["Content-Length"]) > 0:
		writeLine(w, "Content-Length", "0")
	}
	_, _ = w.WriteString("\r\n")
}

func (o *outgoing) writeForwarded(w *bufio.Writer) {
	f := o.forward
	_, _ = w.WriteString("Forwarded: ")
	for _, v := range o.received("Forwarded") {
		_, _ = w.WriteString(v)
		_, _ = w.WriteString(", ")
	}
	_, _ = w.Write(f.appendElement(w.AvailableBuffer()))
	_, _ = w.WriteString("\r\nX-Forwarded-For: ")
	for _, v := range o.received("X-Forwarded-For") {
		_, _ = w.WriteString(v)
		_, _ = w.WriteString(", ")
	}
	if f.ip == "" {
		_, _ = w.WriteString("unknown")
	} else {
		_, _ = w.WriteString(f.ip)
	}
	_, _ = w.WriteString("\r\n")
	if f.host != "" {
		writeLine(w, "X-Forwarded-Host", f.host)
	}
	writeLine(w, "X-Forwarded-Proto", f.proto)
}

// received returns what proxies before this one said.
func (o *outgoing) received(k string) []string {
	if o.named != nil && slices.Contains(o.named, k) {
		return nil
	}
	return o.header[k]
}

// clientError is a failure to read the request's body: the client's side of the exchange, not the function's.
type clientError struct{ err error }

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// errTooLarge is a body longer than it may be.
var errTooLarge = errors.New("the body is too large")

// copyBufs holds buffers of copyBuffer bytes.
type copyBufs struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func (p *copyBufs) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, copyBuffer)
	return &b
}

func (p *copyBufs) put(b *[]byte) { p.pool.Put(b) }

// writeInline sends a short body together with the head.
func (o *outgoing) writeInline(w *bufio.Writer) error {
	left := o.length
	for left > 0 {
		if w.Available() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		buf := w.AvailableBuffer()
		buf = buf[:min(int64(cap(buf)), left)]
		n, err := o.body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			left -= int64(n)
		}
		if err != nil && left > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return &clientError{err}
		}
	}
	return w.Flush()
}

// writeStream sends a body as it comes, each piece at once.
func (o *outgoing) writeStream(w *bufio.Writer, buf []byte, moved func()) error {
	var total int64
	for {
		n, err := o.body.Read(buf)
		if n > 0 {
			moved()
			if total += int64(n); total > o.maxBody {
				return &clientError{errTooLarge}
			}
			if o.chunked {
				var size [20]byte
				_, _ = w.Write(append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n'))
			}
			_, _ = w.Write(buf[:n])
			if o.chunked {
				_, _ = w.WriteString("\r\n")
			}
			if werr := w.Flush(); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return &clientError{err}
		}
	}
	if !o.chunked {
		if total != o.length {
			return &clientError{io.ErrUnexpectedEOF}
		}
		return nil
	}
	_, _ = w.WriteString("0\r\n")
	for k, vv := range o.req.Trailer {
		if dropHop(k) || dropOwn(k) {
			continue
		}
		for _, v := range vv {
			if validValue(v) {
				writeLine(w, k, v)
			}
		}
	}
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// validValue reports whether a header's value cannot end its line.
func validValue(v string) bool { return !strings.ContainsAny(v, "\r\n\x00") }

// validName reports whether a header's name is a token.
func validName(k string) bool {
	if k == "" {
		return false
	}
	for i := range len(k) {
		c := k[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}
