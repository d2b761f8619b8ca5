package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
)

// endless is a queue whose results have a body that does not end; closed tells when it was given back.
type endless struct {
	*front
	closed chan struct{}
}

func (e endless) OpenBody(context.Context, *functions.Result) (io.ReadCloser, int64, error) {
	return e, 1 << 50, nil
}
func (e endless) Read(b []byte) (int, error) { return len(b), nil }
func (e endless) Close() error               { close(e.closed); return nil }

// A client that asks for a result and reads nothing is let go of.
func TestAClientThatReadsNothingHoldsNothing(t *testing.T) {
	t.Parallel()
	f := &front{ready: make(chan struct{})}
	f.status.ID, f.status.State, f.status.Result = "inv_x", functions.StateSucceeded, &functions.Result{Status: 200}
	q := endless{f, make(chan struct{})}
	cfg := Config{PublicAddr: "127.0.0.1:0", DrainTimeout: time.Second, WriteTimeout: 50 * time.Millisecond}
	g, stop := run(t, cfg, Public(f, q, cfg), say("control"))
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	c, err := net.Dial("tcp", g.Addrs().Public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /invocations/inv_x/body HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-q.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler still writes")
	}
}

// deadlines notes the deadlines that are set on a connection.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

// The deadline of one answer must not cut the next one on the same connection, which may be a function's stream.
func TestTheDeadlineOfAnAnswerIsItsOwn(t *testing.T) {
	t.Parallel()
	h := bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, io.ErrUnexpectedEOF)
	}))
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(d, httptest.NewRequest("GET", "/", nil))
	h.ServeHTTP(d, httptest.NewRequest("GET", "/", nil))
	if len(d.set) != 4 || slices.ContainsFunc([]time.Time{d.set[0], d.set[2]}, func(at time.Time) bool { return !at.IsZero() }) {
		t.Fatalf("deadlines %v: want each request to begin without one", d.set)
	}
	if d.set[1].IsZero() || d.set[3].IsZero() {
		t.Errorf("deadlines %v: want each problem to have one", d.set)
	}
}
