package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

func server(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/", client.WithToken("secret"), client.WithUserAgent("test/1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A fault crosses the wire with all that a reader wants of it.
func TestFaultsCross(t *testing.T) {
	t.Parallel()
	sent := fault.New(fault.CodeQuotaExceeded, "too much").WithField("memory").WithHint("less").WithDetails("a", "b").WithRetryAfter(7 * time.Second)
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.UserAgent() != "test/1" {
			t.Errorf("headers %v", r.Header)
		}
		problem.Write(w, r, sent)
	})
	_, err := c.Status(t.Context())
	got := fault.From(err)
	if got == nil || got.Code != sent.Code || got.Message != sent.Message || got.Field != sent.Field || got.Hint != sent.Hint ||
		strings.Join(got.Details, ",") != "a,b" || got.RetryAfter != sent.RetryAfter {
		t.Errorf("%+v", got)
	}
}

// What is no problem document still becomes a fault of the right kind.
func TestAnswersOfOthers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]fault.Code{
		401: fault.CodeUnauthenticated, 403: fault.CodeDenied, 404: fault.CodeNotFound, 409: fault.CodeConflict, 413: fault.CodeBodyTooLarge,
		429: fault.CodeRateLimited, 418: fault.CodeInvalidRequest, 502: fault.CodeUnavailable, 504: fault.CodeWaitTimeout, 507: fault.CodeStorageFull,
	} {
		c := server(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>from a proxy</html>")
		})
		if _, err := c.Version(t.Context()); fault.CodeOf(err) != want {
			t.Errorf("%d: %v", status, err)
		}
	}
	c := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{") })
	if _, err := c.Version(t.Context()); fault.CodeOf(err) != fault.CodeUnavailable {
		t.Errorf("broken JSON: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"http://127.0.0.1:1", "unix://" + filepath.Join(t.TempDir(), "absent"), filepath.Join(t.TempDir(), "absent")} {
		c, err := client.New(server)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Status(t.Context())
		f := fault.From(err)
		if f == nil || f.Code != fault.CodeUnavailable || !strings.Contains(f.Message, server) || !strings.Contains(f.Hint, "tatami up") {
			t.Errorf("%s: %+v", server, f)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:8081", "ftp://x", "http://", "nonsense"} {
		if _, err := client.New(bad); fault.CodeOf(err) != fault.CodeInvalidRequest {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A server that goes away during a request is told from one that is not there.
func TestServerGoesAway(t *testing.T) {
	t.Parallel()
	c := server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := c.Status(t.Context())
	f := fault.From(err)
	if f == nil || f.Code != fault.CodeUnavailable || !strings.Contains(f.Message, "broke") || !errors.Is(err, io.EOF) {
		t.Errorf("%+v", f)
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); fault.CodeOf(err) != fault.CodeWaitTimeout {
		t.Errorf("too late: %v", err)
	}
}

// A log stream that the server breaks off is an error when it was to be followed, and where a line is broken.
func TestLogsThatEnd(t *testing.T) {
	t.Parallel()
	const line = `{"time":"2026-01-31T12:00:00Z","instance":"ins_x","stream":"stdout","text":"one"}` + "\n\n"
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	read := func(body string, q client.LogQuery) (lines int, err error) {
		c := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		err = c.Logs(t.Context(), ref, q, func(v1.LogLine) error { lines++; return nil })
		return lines, err
	}
	if n, err := read(line+line, client.LogQuery{}); n != 2 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
	if n, err := read(line, client.LogQuery{Follow: true}); n != 1 || fault.CodeOf(err) != fault.CodeUnavailable {
		t.Errorf("followed: %d lines, %v", n, err)
	}
	if n, err := read(line+"{half", client.LogQuery{}); n != 1 || fault.CodeOf(err) != fault.CodeUnavailable {
		t.Errorf("broken: %d lines, %v", n, err)
	}
	enough := errors.New("enough")
	c := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, line+line) })
	if err := c.Logs(t.Context(), ref, client.LogQuery{}, func(v1.LogLine) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the reader's own error: %v", err)
	}
}
