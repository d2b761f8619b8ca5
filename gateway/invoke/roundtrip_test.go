package invoke_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Timeout = functions.Duration(2 * time.Second) })
	b.backend(rev, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/half":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		default:
			seen(w, r)
		}
	})
	try := func(path string, body io.Reader) (string, error) {
		l, err := b.inv.Lease(t.Context(), hello, invoke.Async)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://hello.default"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Tatami-Invocation-Id", "inv_x")
		r.Header.Set("Tatami-Attempt", "2")
		r.Header.Set("Connection", "X-Named")
		r.Header.Set("X-Named", "gone")
		resp, err := l.RoundTrip(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		return string(got), err
	}
	for _, size := range []int{0, 1, 100_000} {
		var body io.Reader
		if size > 0 {
			body = strings.NewReader(strings.Repeat("x", size))
		}
		got, err := try("/a%2Fb?q=1", body)
		if err != nil || !strings.HasPrefix(got, "POST /a%2Fb?q=1 host=hello.default len="+fmt.Sprint(size)) || strings.Contains(got, "X-Named") ||
			!strings.Contains(got, "Tatami-Invocation-Id: inv_x\n") || !strings.Contains(got, "Tatami-Attempt: 2\n") {
			t.Errorf("%v: %.300s", err, got)
		}
	}
	if _, err := try("/slow", nil); fault.CodeOf(err) != fault.CodeFunctionTimeout {
		t.Errorf("slow: %v", err)
	}
	if got, err := try("/half", nil); fault.CodeOf(err) != fault.CodeFunctionBadResponse || got != "half" {
		t.Errorf("half: %q, %v", got, err)
	}
	l, err := b.inv.Lease(t.Context(), hello, invoke.Async)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{
		{Method: "GET", Header: http.Header{"X-A": {"b\r\nX-C: d"}}}, {Method: "GET", Header: http.Header{"X A": {"b"}}},
		{Method: "GET /x HTTP/1.1\r\nX: y", Header: http.Header{}}, {Method: "GET", Host: "a b", Header: http.Header{}},
	} {
		r.URL = httptest.NewRequest("GET", "/", nil).URL
		if _, err := l.RoundTrip(r); fault.CodeOf(err) != fault.CodeInvalidRequest {
			t.Errorf("%v passes: %v", r, err)
		}
	}
	l.Release()
	b.idle()
	if st := b.inv.Stats()[0]; st.Requests != 5 || st.Codes["200"] != 3 || st.Codes["function-timeout"] != 1 {
		t.Errorf("%+v", st)
	}
}

// Many functions under load while instances come, go and refuse: every request is answered, and no slot is lost.
func TestChurn(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	var revs []*functions.Revision
	for i := range 4 {
		revs = append(revs, b.deploy(fmt.Sprintf("fn%d", i), func(c *functions.Config) { c.Concurrency = 2 }))
		b.node.start(t, revs[i], s.Listener.Addr().String(), functions.Phases{})
	}
	stop := make(chan struct{})
	var churn, load sync.WaitGroup
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			id := b.node.start(t, revs[i%4], s.Listener.Addr().String(), functions.Phases{})
			b.node.change(id, func(in *inst) { in.refuse = i%3 == 0 })
			b.node.mu.Lock()
			var leave functions.InstanceID
			count := 0
			for id, in := range b.node.insts {
				if in.ep.Function == revs[i%4].Function && in.held == 0 && !in.refuse {
					count++
					leave = id
				}
			}
			if count > 1 {
				b.node.insts[leave].refuse = true // drains from here on
			}
			b.node.mu.Unlock()
			if count > 1 {
				b.node.end(t, bus.Departure{Instance: leave, State: functions.InstanceStopped, Reason: "idle"})
			}
		}
	})
	for i := range 16 {
		load.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for range 100 {
				resp, err := (&http.Client{Transport: tr}).Get(b.front.URL + fmt.Sprintf("/fn/fn%d", i%4))
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("%s %s", resp.Status, body)
				}
			}
		})
	}
	load.Wait()
	close(stop)
	churn.Wait()
	b.idle()
	count := func() (total uint64) {
		for _, st := range b.inv.Stats() {
			total += st.Requests
		}
		return total
	}
	waitFor(t, func() bool { return count() >= 1600 })
	for _, st := range b.inv.Stats() {
		if st.InFlight != 0 || st.Waiting != 0 || st.Codes["200"] != st.Requests {
			t.Errorf("%+v", st)
		}
	}
	if total := count(); total != 1600 {
		t.Errorf("%d requests were counted", total)
	}
}
