package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// Field is a line of a header: a canonical name, and a value without anything odd in it.
type Field struct{ Name, Value string }

// Incoming reads answers one after the other, ordinary ones with little work. The zero value is ready.
type Incoming struct {
	fields []Field
	resp   http.Response
	body   sizedBody
	// last is the ordinary head read last, said and plain what it was found to say: many an answer begins as the one before.
	last  string
	said  []Field
	plain http.Response
}

// Read reads the head of the answer to r and returns the answer, whose body must be read before the next Read. An ordinary answer has no
// header: most need none, for their fields are passed on as they came. What is not ordinary is read by http.ReadResponse, and so is what has
// not come as one piece.
func (in *Incoming) Read(br *bufio.Reader, r *http.Request) (*http.Response, error) {
	if _, err := br.Peek(1); err == nil && r.Method != http.MethodHead {
		b, _ := br.Peek(br.Buffered())
		if n := in.head(b); n > 0 {
			_, _ = br.Discard(n)
			in.resp.Request = r
			if in.resp.ContentLength > 0 {
				in.body = sizedBody{br: br, left: in.resp.ContentLength}
				in.resp.Body = &in.body
			}
			return &in.resp, nil
		}
	}
	return http.ReadResponse(br, r)
}

// Fields are those of the ordinary answer read last, until the next Read. They are the caller's to change.
func (in *Incoming) Fields() []Field { return in.fields }

// Get returns the first value of a field of the ordinary answer read last, "" where there is none.
func (in *Incoming) Get(name string) string {
	for _, f := range in.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Header makes the header of the ordinary answer read last.
func (in *Incoming) Header() http.Header {
	h := make(http.Header, len(in.fields))
	values := make([]string, len(in.fields))
	for i, f := range in.fields {
		if vv, again := h[f.Name]; again {
			h[f.Name] = append(vv, f.Value)
			continue
		}
		values[i] = f.Value
		// An append must not run into the next value.
		h[f.Name] = values[i : i+1 : i+1]
	}
	return h
}

// head reads an ordinary head and returns its length; 0 where there is none.
func (in *Incoming) head(b []byte) int {
	if n := len(in.last); n > 0 && len(b) >= n && string(b[:n]) == in.last {
		in.fields, in.resp = append(in.fields[:0], in.said...), in.plain
		return n
	}
	end := bytes.Index(b, endOfHead)
	if end < 0 {
		return 0
	}
	head := string(b[:end+len(endOfHead)])
	if !in.parse(head[:end+2]) {
		return 0
	}
	in.last, in.said, in.plain = head, append(in.said[:0], in.fields...), in.resp
	return len(head)
}

// parse reads the lines of an ordinary head; false where it is none.
func (in *Incoming) parse(head string) bool {
	line, rest, ok := cutLine(head)
	if !ok {
		return false
	}
	const version, digits = "HTTP/1.1 ", 3
	status, ok := strings.CutPrefix(line, version)
	if !ok || len(status) <= digits || status[digits] != ' ' || !only(status, inValue) {
		return false
	}
	code := 0
	for _, c := range []byte(status[:digits]) {
		if c < '0' || c > '9' {
			return false
		}
		code = code*10 + int(c-'0')
	}
	if !bodyAllowed(code) {
		return false
	}
	if in.fields == nil {
		in.fields = make([]Field, 0, usualHeaders)
	}
	in.fields = in.fields[:0]
	in.resp = http.Response{
		Status: status, StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, ContentLength: -1,
	}
	for rest != "" {
		var f Field
		if f, rest, ok = cutField(rest); !ok || !in.special(f) {
			return false
		}
		in.fields = append(in.fields, f)
	}
	return in.resp.ContentLength >= 0
}

// special heeds the fields that say something of the connection or the body. It is false for those that make an answer unusual.
func (in *Incoming) special(f Field) bool {
	switch f.Name {
	case "Content-Length":
		n, ok := bodyLength(f.Value)
		if !ok || in.resp.ContentLength >= 0 {
			return false
		}
		in.resp.ContentLength = n
	case "Connection":
		return strings.EqualFold(f.Value, "keep-alive") && in.Get(f.Name) == ""
	case "Transfer-Encoding", "Trailer", "Upgrade", "Pragma":
		return false
	}
	return true
}

// sizedBody is a body of a given length.
type sizedBody struct {
	br   *bufio.Reader
	left int64
}

// Read reads the body. It returns io.EOF together with the last bytes.
func (b *sizedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.br.Read(p)
	b.left -= int64(n)
	switch {
	case b.left == 0:
		err = io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close does nothing: what was not read stays.
func (b *sizedBody) Close() error { return nil }
