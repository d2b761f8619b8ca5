package invoke_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/tests/wishes"
)

// Each moment at which bytes pass between client and instance keeps the processors awake, and nothing else does.
func TestPassingBytesKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Calls)
	b := setup(t, invoke.Config{Awake: keeper})
	step := make(chan struct{})
	speak := func(rw http.ResponseWriter, r *http.Request) {
		<-step
		rw.WriteHeader(http.StatusOK)
		rw.(http.Flusher).Flush()
		for range 2 {
			<-step
			_, _ = io.WriteString(rw, "piece")
			rw.(http.Flusher).Flush()
		}
	}
	b.backend(b.deploy("one", nil), speak)
	b.backendH2(b.deploy("two", h2c), speak)
	for _, fn := range []string{"one", "two"} {
		c, r := b.raw("GET /fn/" + fn + " HTTP/1.1\r\nHost: a\r\n\r\n")
		for i, what := range []string{"the head", "the body", "more of the body"} {
			w.None("a function at work")
			step <- struct{}{}
			w.Begins(fn + ": " + what)
			if i == 0 {
				if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%v, %v", resp, err)
				}
			}
			if i == 2 {
				w.Settle()
			} else {
				w.Ends(fn + ": " + what)
			}
		}
		c.Close()
	}
	b.idle()
}

func TestBodiesAndUpgradesKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Calls)
	b := setup(t, invoke.Config{Awake: keeper})
	const pieces = 3
	piece := strings.Repeat("x", 100<<10)
	eaten := make(chan error, pieces)
	b.backend(b.deploy("eats", nil), func(_ http.ResponseWriter, r *http.Request) {
		for range pieces {
			_, err := io.CopyN(io.Discard, r.Body, int64(len(piece)))
			eaten <- err
		}
	})
	c, r := b.raw(fmt.Sprintf("POST /fn/eats HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", pieces*len(piece)))
	for range pieces {
		w.None("a client that waits")
		if _, err := io.WriteString(c, piece); err != nil {
			t.Fatal(err)
		}
		if err := <-eaten; err != nil {
			t.Fatal(err)
		}
		w.Begins("a piece of a body")
		w.Settle()
	}
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", resp, err)
	}
	c.Close()
	w.Settle()

	b.rawBackend(b.deploy("echo", nil), func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, in)
	})
	c, r = b.raw("GET /fn/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	w.Settle()
	for range 2 {
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		w.Begins("a byte there and back")
		w.Settle()
	}
	c.Close()
	b.idle()
}

// A call for which an instance has to start keeps the processors awake as the start itself will, which is before the runtime hears of it.
func TestCallsFromZeroKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Starts)
	b := setup(t, invoke.Config{Awake: keeper})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 2 })
	answered := make(chan string, 1)
	go func() {
		_, body := b.do("GET", "/fn/hello", nil)
		answered <- body
	}()
	w.Begins("a call from zero")
	w.Ends("a call that waits")
	b.backend(rev, seen)
	<-answered
	b.do("GET", "/fn/hello", nil)
	w.None("a warm call")
	b.idle()
}
