package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Every request is sent and counted once, in the phase in which it was due, however slow the answers are.
func TestGeneratorCountsEveryRequest(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		w.Header().Set("Content-Length", "3000")
		switch {
		case n%5 == 0:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case n%7 == 0:
			time.Sleep(30 * time.Millisecond)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 3000))
	}))
	defer s.Close()
	phases := []phase{{"many", 500, 200 * time.Millisecond}, {"few", 20, 200 * time.Millisecond}}
	r, err := openGenerate(strings.TrimPrefix(s.URL, "http://"), "/", time.Minute, phases)
	if err != nil {
		t.Fatal(err)
	}
	if r[0].Offered != 100 || r[1].Offered != 4 || asked.Load() != 104 {
		t.Errorf("%d and %d were sent, %d came", r[0].Offered, r[1].Offered, asked.Load())
	}
	refused := r[0].Refused + r[1].Refused
	if refused != 20 || r[0].Told+r[1].Told != 20 || r[0].Answered+r[1].Answered+refused != 104 {
		t.Errorf("%+v", r)
	}
	if r[0].P99 < r[0].P50 || r[0].RefusalMost < r[0].RefusalP50 || r[0].RefusalP50 <= 0 {
		t.Errorf("%+v", r[0])
	}
}

func TestAnswersAreRead(t *testing.T) {
	t.Parallel()
	const whole = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nContent-Length: 3\r\n\r\n"
	if a, n, err := parseAnswer([]byte(whole + "ab")); err != nil || n != len(whole)+3 || a.status != "503" || !a.retryAfter {
		t.Errorf("%+v %d %v", a, n, err)
	}
	if _, n, err := parseAnswer([]byte(whole[:len(whole)-1])); err != nil || n != 0 {
		t.Errorf("of a part: %d %v", n, err)
	}
	for _, odd := range []string{"HTTP\r\n\r\n", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"} {
		if _, _, err := parseAnswer([]byte(odd)); err == nil {
			t.Errorf("%q is taken", odd)
		}
	}
}
