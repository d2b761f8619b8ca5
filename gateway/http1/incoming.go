package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// Incoming reads answers one after the other, ordinary ones with little work. The zero value is ready.
type Incoming struct {
	fields
	resp http.Response
	body sizedBody
}

// Read reads the head of the answer to r and returns the answer, whose body must be read before the next Read: that uses its header again.
// What is not ordinary is read by http.ReadResponse, and so is what has not come as one piece.
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

// head reads an ordinary head and returns its length; 0 where there is none.
func (in *Incoming) head(b []byte) int {
	end := bytes.Index(b, endOfHead)
	if end < 0 {
		return 0
	}
	line, rest, ok := cutLine(string(b[:end+2]))
	if !ok {
		return 0
	}
	const version, digits = "HTTP/1.1 ", 3
	status, ok := strings.CutPrefix(line, version)
	if !ok || len(status) <= digits || status[digits] != ' ' || !only(status, inValue) {
		return 0
	}
	code := 0
	for _, c := range []byte(status[:digits]) {
		if c < '0' || c > '9' {
			return 0
		}
		code = code*10 + int(c-'0')
	}
	if !bodyAllowed(code) {
		return 0
	}
	in.reset()
	in.resp = http.Response{
		Status: status, StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: in.header, Body: http.NoBody, ContentLength: -1,
	}
	for rest != "" {
		var name, value string
		if name, value, rest, ok = cutField(rest); !ok || !in.special(name, value) {
			return 0
		}
		in.add(name, value)
	}
	if in.resp.ContentLength < 0 {
		return 0
	}
	return end + len(endOfHead)
}

// special heeds the headers that say something of the connection or the body. It is false for those that make an answer unusual.
func (in *Incoming) special(name, value string) bool {
	switch name {
	case "Content-Length":
		n, ok := bodyLength(value)
		if !ok || in.resp.ContentLength >= 0 {
			return false
		}
		in.resp.ContentLength = n
	case "Connection":
		return strings.EqualFold(value, "keep-alive") && len(in.header[name]) == 0
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
