package http1_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/tests/wishes"
)

// A connection and each request on it keep the processors awake from their first byte on; a handler that takes its time does not.
func TestRequestsKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, w := wishes.New(t, awake.Calls)
	_, addr := start(t, http1.Config{Awake: keeper}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		w.Begins("a request")
		w.Ends("a handler at work")
	}))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.Begins("a connection")
	w.Ends("a silent connection")
	r := bufio.NewReader(c)
	for range 3 {
		if _, err := io.WriteString(c, "GET /fn/a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		w.None("an answer of nobody that is told")
	}
}
