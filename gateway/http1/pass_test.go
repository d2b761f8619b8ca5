package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/gateway/http1"
)

// toPass are answers that a function may give; each is ordinary.
var toPass = map[string]string{
	"plain":            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello",
	"no body":          "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nLocation: /a\r\n\r\n",
	"no type, no date": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
	"status unknown":   "HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok",
	"spelling":         "HTTP/1.1 404 Gone\r\ncontent-length:3\r\nx-lOWER:  a \t\r\nX-Empty:\r\n\r\nabc",
	"twice":            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 1\r\nSet-Cookie: b=2\r\n\r\nx",
	"connection":       "HTTP/1.1 500 Oh\r\nConnection: keep-alive\r\nContent-Length: 1\r\nX: \xff\r\n\r\nx",
	"many":             "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + strings.Repeat("X-Many: v\r\n", 100) + "\r\nx",
	"set as well":      "HTTP/1.1 200 OK\r\nX-Own: the function's\r\nContent-Length: 2\r\n\r\nok",
	"longer than room": "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + strings.Repeat("0123456789", 3000),
}

// An answer whose fields are passed on is the one that its header makes, whatever the handler has set itself.
func TestPass(t *testing.T) {
	t.Parallel()
	for name, text := range toPass {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read := func(w http.ResponseWriter) (*http1.Incoming, *http.Response) {
				if name == "set as well" {
					w.Header().Set("X-Own", "the handler's")
					w.Header().Set("X-More", "the handler's")
					w.Header().Set("Connection", "close")
				}
				in := &http1.Incoming{}
				resp, err := in.Read(bufio.NewReaderSize(strings.NewReader(text), len(text)), &http.Request{Method: http.MethodGet})
				if err != nil || resp.Header != nil {
					t.Errorf("it is not ordinary: %v", err)
				}
				return in, resp
			}
			want := passed(t, func(w http.ResponseWriter) {
				in, resp := read(w)
				h := w.Header()
				h["Content-Type"] = nil
				for k, vv := range in.Header() {
					h[k] = vv
				}
				w.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(w, resp.Body)
			})
			got := passed(t, func(w http.ResponseWriter) {
				in, resp := read(w)
				w.(interface{ Pass(int, []http1.Field) }).Pass(resp.StatusCode, in.Fields())
				_, _ = io.Copy(w, resp.Body)
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("it differs from what the header makes (-):\n%s", diff)
			}
		})
	}
}

// passed returns what two requests on one connection are answered by the handler.
func passed(t *testing.T, handle func(http.ResponseWriter)) (all []string) {
	t.Helper()
	_, addr := start(t, http1.Config{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { handle(w) }))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for range 2 {
		if _, err := io.WriteString(c, "GET /fn/a HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return append(all, "closed")
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return append(all, "closed")
		}
		body, err := io.ReadAll(resp.Body)
		if date := resp.Header.Get("Date"); date == "" {
			t.Error("no date")
		} else if date[len(date)-len("1970 00:00:00 GMT"):] != "1970 00:00:00 GMT" {
			resp.Header.Del("Date")
		}
		all = append(all, fmt.Sprintf("%s, length %d %v, close %t, %q, %.40q %d %v", resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Header,
			body, len(body), err))
	}
	return all
}
