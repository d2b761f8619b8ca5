package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// A client that announces a body and does not send it holds nothing for long: it is answered, and its connection ends.
func TestABodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	f := &front{ready: make(chan struct{})}
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0"}, Public(f, f, Config{}), say("control"))
	for _, head := range []string{
		"POST /async/nobody HTTP/1.1", "POST /nothing HTTP/1.1", "GET /healthz HTTP/1.1", "GET /invocations/inv_y HTTP/1.1", "POST /fn/hello HTTP/1.1",
	} {
		t.Run(head, func(t *testing.T) {
			t.Parallel()
			for _, more := range []string{"", "Expect: 100-continue\r\n"} {
				c, err := net.Dial("tcp", g.Addrs().Public)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprintf(c, "%s\r\nHost: x\r\nContent-Length: 10\r\n%s\r\nabc", head, more)
				got, err := io.ReadAll(c)
				if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 ") {
					t.Errorf("%s: %q, %v", more, got, err)
				}
			}
		})
	}
	// A body that came whole leaves the connection as it was.
	t.Cleanup(func() {
		c, err := net.Dial("tcp", g.Addrs().Public)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		for range 2 {
			fmt.Fprint(c, "POST /async/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != http.StatusAccepted {
				t.Fatal(resp, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			time.Sleep(1200 * time.Millisecond)
		}
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A body for the queue that comes too slowly is refused as such; one that comes fast enough may take longer than the grace.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	got := make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := newClientBody(w, r)
		b.deadline = time.Now().Add(100 * time.Millisecond)
		_ = b.control.SetReadDeadline(b.deadline)
		_, err := io.ReadAll(b)
		if err != nil {
			err = b.fault()
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v is not told from a client that left", err)
			}
		} else if r.Context().Err() != nil {
			err = r.Context().Err()
		}
		got <- err
	}))
	defer s.Close()
	send := func(parts int, size int) error {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// The first part is there when the grace begins, whatever keeps this client from going on.
		part := strings.Repeat("x", size)
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n"+part)
		for range parts - 1 {
			time.Sleep(60 * time.Millisecond)
			fmt.Fprint(c, part)
		}
		return <-got
	}
	if err := send(4, 1024); err != nil {
		t.Errorf("fast enough: %v", err)
	}
	if err := send(4, 10); err == nil || !strings.Contains(err.Error(), "less than 1024 bytes a second") {
		t.Errorf("too slow: %v", err)
	}
}
