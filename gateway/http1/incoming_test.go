package http1

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answers are answers, and whether they are ordinary.
var answers = []struct {
	text     string
	ordinary bool
}{
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true},
	{"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: keep-alive\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nnext", true},
	{"HTTP/1.1 599 \r\nContent-Length: 2\r\nX: \xff\r\n\r\nok", true},
	{"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nshort", true},
	{"", false},
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", false},
	{"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", false},
	{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false},
	{"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false},
	{"HTTP/1.1 200 OK\r\n\r\nto the end", false},
	{"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false},
	{"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", false},
	{"HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello", false},
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false},
	{"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", false},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
	{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", false},
	{"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", false},
	{"\x00\x00\x00", false},
}

func TestIncoming(t *testing.T) {
	t.Parallel()
	for _, a := range answers {
		var in Incoming
		if got := in.head([]byte(a.text)) > 0; got != a.ordinary {
			t.Errorf("%q: ordinary is %t", a.text, got)
		}
		sameAnswer(t, a.text)
	}
}

// sameAnswer reads the text as answers, one behind the other, and checks that net/http reads the same ones.
func sameAnswer(t *testing.T, text string) {
	t.Helper()
	read := func(next func(*bufio.Reader, *http.Request) (*http.Response, error)) (all []string) {
		br := bufio.NewReader(strings.NewReader(text))
		for range 10 {
			resp, err := next(br, &http.Request{Method: "GET"})
			if err != nil {
				return append(all, err.Error())
			}
			body, err := io.ReadAll(resp.Body)
			all = append(all, fmt.Sprintf("%s %q %d %s %q %d %q %v %q %q %v", resp.Proto, resp.Status, resp.StatusCode, resp.Header, resp.TransferEncoding,
				resp.ContentLength, resp.Trailer, resp.Close, body, err, resp.Body == http.NoBody))
		}
		return all
	}
	var in Incoming
	withHeader := func(br *bufio.Reader, r *http.Request) (*http.Response, error) {
		resp, err := in.Read(br, r)
		if err == nil && resp.Header == nil {
			resp.Header = in.Header()
		}
		return resp, err
	}
	if diff := cmp.Diff(read(http.ReadResponse), read(withHeader)); diff != "" {
		t.Errorf("%q: it differs from net/http (-):\n%s", text, diff)
	}
}

// An answer that begins as the one before says the same, whatever became of that one; one that begins alike and goes on otherwise does not.
func TestAnswersAlike(t *testing.T) {
	t.Parallel()
	const head, other = "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 201 Created\r\nX: 2\r\nContent-Length: 2\r\n\r\n"
	const longer = "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 1\r\nX: 3\r\n\r\n"
	br := bufio.NewReader(strings.NewReader(head + "a" + head + "b" + longer + "c" + head + "d" + other + "ef" + other + "gh"))
	var in Incoming
	for i, want := range []string{"200 OK 1 1 a", "200 OK 1 1 b", "200 OK 1 1 3 c", "200 OK 1 1 d", "201 Created 2 2 ef", "201 Created 2 2 gh"} {
		resp, err := in.Read(br, &http.Request{Method: "GET"})
		if err != nil {
			t.Fatal(err)
		}
		got := resp.Status
		for _, f := range in.Fields() {
			got += " " + f.Value
		}
		body, err := io.ReadAll(resp.Body)
		if got += " " + string(body); err != nil || got != want {
			t.Errorf("answer %d is %q, want %q: %v", i, got, want, err)
		}
		// Both are the caller's to change.
		clear(in.Fields())
		resp.Header, resp.Status, resp.ContentLength = http.Header{}, "changed", -1
	}
}

// Whatever comes, it is read as net/http reads it.
func FuzzIncoming(f *testing.F) {
	for _, a := range answers {
		f.Add(a.text)
		f.Add(a.text + a.text)
	}
	f.Fuzz(sameAnswer)
}
