package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// heads are requests with what is found of them.
var heads = []struct {
	text string
	want verdict
}{
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\n\r\n", ordinary},
	{"GET /fn/a HTTP/1.1\r\nHost:x\r\n\r\nmore", ordinary},
	{"DELETE /fn/a/b?c=d&e=%20 HTTP/1.1\r\nhost: [::1]:80\r\nuser-agent: y\r\nX-a: \r\nx-A:\t b \t\r\n\r\n", ordinary},
	{"POST /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nCookie: a=b; c=d\r\nCookie: e\r\n\r\nabc", ordinary},
	{"POST /fn/a? HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", ordinary},
	{"GET /fn/%41%2F/(x)!'* HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", ordinary},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nX: \xff\xc3\xbc\r\n\r\n", ordinary},
	{"", incomplete},
	{"GET /fn/a HT", incomplete},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\n\r", incomplete},
	{"GET /fn/a HTTP/1.1\nHost: x\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\n\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\rX: y\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.0\r\nHost: x\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1 \r\nHost: x\r\n\r\n", unusual},
	{"GET  /fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"get /fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET http://x/fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET //fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET * HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET /fn/%zz HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET /fn/a#b HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"CONNECT /fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", unusual},
	{"\x16\x03\x01\x02\x00\x01\x00\x01", unusual},
	{"\r\nGET /fn/a HTTP/1.1\r\nHost: x\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: \r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x y\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\n Host: x\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nX\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", unusual},
	{"POST /fn/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", unusual},
	{"POST /fn/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: x\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\nTE: trailers\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nidempotency-key: 1\r\n\r\n", unusual},
	{"GET /fn/a HTTP/1.1\r\nHost: x\r\nPragma: no-cache\r\n\r\n", unusual},
}

func TestHead(t *testing.T) {
	t.Parallel()
	for _, h := range heads {
		if got := agrees(t, []byte(h.text)); got != h.want {
			t.Errorf("%q: found %d, want %d", h.text, got, h.want)
		}
	}
	// More headers than there is room for ahead, each a list of its own.
	var b strings.Builder
	b.WriteString("GET /fn/a HTTP/1.1\r\nHost: x\r\n")
	for i := range 3 * usualHeaders {
		fmt.Fprintf(&b, "X-%d: %d\r\nX-%d: again\r\n", i, i, i)
	}
	if got := agrees(t, []byte(b.String()+"\r\n")); got != ordinary {
		t.Errorf("many headers: found %d", got)
	}
}

// agrees reads a head and checks that net/http reads the same of one that is ordinary.
func agrees(t *testing.T, b []byte) verdict {
	t.Helper()
	var pool works
	w := pool.get()
	defer pool.put(w)
	w.reset(&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1})
	n, v := w.head(b)
	if v != ordinary {
		return v
	}
	rest := bytes.NewReader(b)
	br := bufio.NewReaderSize(rest, 16)
	want, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q is taken, and net/http says %v", b, err)
	}
	if used := len(b) - rest.Len() - br.Buffered(); used != n {
		t.Errorf("%q: the head has %d bytes, for net/http %d", b, n, used)
	}
	if want.ContentLength < 0 || len(want.TransferEncoding) > 0 || len(want.Trailer) > 0 {
		t.Errorf("%q is taken, with a body in another form", b)
	}
	type seen struct {
		Method, URI, Host, URL, Path, RawPath string
		Header                                http.Header
		Length                                int64
		Close, Force                          bool
	}
	see := func(r *http.Request) seen {
		return seen{
			r.Method, r.RequestURI, r.Host, r.URL.String(), r.URL.Path, r.URL.RawPath, r.Header.Clone(), r.ContentLength, r.Close, r.URL.ForceQuery,
		}
	}
	if diff := cmp.Diff(see(want), see(&w.req)); diff != "" {
		t.Errorf("%q: it differs from net/http (-):\n%s", b, diff)
	}
	_, _ = io.Copy(io.Discard, want.Body)
	return v
}

// Whatever comes, what is taken is what net/http would have read.
func FuzzHead(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= inSize {
			agrees(t, b)
		}
	})
}
