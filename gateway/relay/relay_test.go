package relay_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/relay"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
	"github.com/tatami-faas/tatami/tests/leaks"
	"github.com/tatami-faas/tatami/tests/process"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// server is one of a cluster: what it serves itself, and what it hands on.
type server struct {
	relay           *relay.Relay
	public, control *httptest.Server
	addr            string
	client          *http.Client
}

func newServer(t *testing.T, a *pki.Authority, name string, patience time.Duration) *server {
	t.Helper()
	return newServerThat(t, a, name, patience, time.Second)
}

// nameKey is where a handler finds the name of the invocation that a request is to become, and whether it may be one already.
type nameKey struct{}

// room is a server's for bodies that are not small.
const room = 100 << 10

// newServerThat is newServer of one that waits for so long until it says that it does not lead.
func newServerThat(t *testing.T, a *pki.Authority, name string, patience, takeOver time.Duration) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	l.Close()
	k := pki.NewOwnKeeper(func() *pki.Authority { return a }, pki.Subject{Role: pki.RoleServer, Name: name}, time.Hour)
	s.relay = relay.New(relay.Config{
		Listen: s.addr, ListenTLS: k.Admit(pki.Only(pki.RoleServer), func(error) {}), DialTLS: k.Reach(pki.Only(pki.RoleServer)), Patience: patience, TakeOver: takeOver, Room: room,
		Local:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name+" itself") }),
		Queued: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/async/") },
		Names: func(r *http.Request) string {
			if strings.HasPrefix(r.URL.Path, "/async/named") {
				return "name"
			}
			return ""
		},
		Named: func(ctx context.Context, id string, again bool) context.Context {
			return context.WithValue(ctx, nameKey{}, fmt.Sprint(id, " ", again))
		},
		Guard: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				next.ServeHTTP(w, r)
			})
		},
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.relay.Run(ctx) }()
	s.public, s.control = httptest.NewServer(s.relay.Public()), httptest.NewServer(s.relay.Control())
	s.client = &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.public.Close()
		s.control.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the relay's end: %v", err)
		}
	})
	return s
}

// active answers with what it is asked, and how it was asked.
func active(name string) relay.Active {
	answer := func(kind string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			fmt.Fprintf(w, "%s %s %s %s %q %s %q", name, kind, r.Method, r.URL.Path, b, local.Network(), r.Header.Get("Tatami-Relay"))
		})
	}
	return relay.Active{Public: answer("public"), Control: answer("control")}
}

func (s *server) ask(t *testing.T, url, method, path, body, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWhoAnswers(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	one.relay.Lead(active("one"))
	two.relay.Point(one.addr)
	for _, c := range []struct {
		server              *server
		control             bool
		method, path, token string
		status              int
		want                string
	}{
		{one, false, "POST", "/async/f", "", 200, `one public POST /async/f "body" tcp ""`},
		{two, false, "POST", "/async/f", "", 200, `one public POST /async/f "body" tcp ""`},
		{two, false, "POST", "/fn/f", "", 200, "two itself"},
		{two, true, "POST", "/v1/functions", "t", 200, `one control POST /v1/functions "body" unix ""`},
		{two, true, "POST", "/v1/functions", "", 401, ""},
	} {
		url := c.server.public.URL
		if c.control {
			url = c.server.control.URL
		}
		if status, got := c.server.ask(t, url, c.method, c.path, "body", c.token); status != c.status || got != c.want {
			t.Errorf("%s: %d %s, want %d %s", c.path, status, got, c.status, c.want)
		}
	}
}

// A request waits for a server that leads, and reaches it whole, body and all, although the one before is gone.
func TestARequestAwaitsWhoLeads(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	gone, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}
	two.relay.Point(gone)
	body := strings.Repeat("x", 1<<16)
	answers := make(chan string, 1)
	go func() {
		_, got := two.ask(t, two.public.URL, "POST", "/async/f", body, "")
		answers <- got
	}()
	// The next one is known before it is ready.
	two.relay.Point("")
	two.relay.Point(one.addr)
	one.relay.Lead(active("one"))
	if got, want := <-answers, fmt.Sprintf("one public POST /async/f %q tcp \"\"", body); got != want {
		t.Errorf("%d bytes, want %d: %.80s", len(got), len(want), got)
	}
}

// A server that no longer leads, and is asked, has the request go to the one that does, body and all.
func TestARequestIsNotLeftWhereNobodyLeads(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two, old := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute), newServer(t, a, "old", time.Minute)
	one.relay.Lead(active("one"))
	two.relay.Point(old.addr)
	body := strings.Repeat("x", 1<<20)
	answers := make(chan string, 1)
	go func() {
		_, got := two.ask(t, two.public.URL, "POST", "/async/f", body, "")
		answers <- got
	}()
	two.relay.Point(one.addr)
	if got, want := <-answers, fmt.Sprintf("one public POST /async/f %q tcp \"\"", body); got != want {
		t.Errorf("%d bytes, want %d: %.80s", len(got), len(want), got)
	}
}

// A server that begins to lead answers those who wait at it.
func TestAServerBeginsToLead(t *testing.T) {
	t.Parallel()
	one := newServer(t, authority(t), "one", time.Minute)
	answers := make(chan string, 1)
	go func() {
		_, got := one.ask(t, one.public.URL, "POST", "/async/f", "b", "")
		answers <- got
	}()
	one.relay.Lead(active("one"))
	if got := <-answers; !strings.HasPrefix(got, "one public") {
		t.Error(got)
	}
	one.relay.Retire(time.Minute)
	if _, got := one.ask(t, one.public.URL, "GET", "/fn/f", "", ""); got != "one itself" {
		t.Error(got)
	}
}

// A server that retires ends what it has begun, while what comes meanwhile goes to the next one that leads.
func TestAServerRetires(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	begun, end := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-end
		fmt.Fprint(w, "ended")
	})
	one.relay.Lead(relay.Active{Public: slow, Control: slow})
	answers := make(chan string, 2)
	ask := func() {
		_, got := one.ask(t, one.public.URL, "POST", "/async/f", "b", "")
		answers <- got
	}
	go ask()
	<-begun
	retired := make(chan struct{})
	go func() { one.relay.Retire(time.Minute); close(retired) }()
	two.relay.Lead(active("two"))
	one.relay.Point(two.addr)
	// The first one is asked as long as it has not begun to retire; it may be asked once only.
	for over := time.Now().Add(time.Minute); one.relay.Leads() && time.Now().Before(over); time.Sleep(time.Millisecond) {
		continue
	}
	go ask()
	if got := <-answers; !strings.HasPrefix(got, "two public") {
		t.Error(got)
	}
	select {
	case <-retired:
		t.Error("it does not wait for what it has begun")
	default:
	}
	close(end)
	if got := <-answers; got != "ended" {
		t.Error(got)
	}
	<-retired
}

// A server that has retired says so at once to the others, as long as nothing tells that it leads again.
func TestWhoHasRetiredIsNotAwaited(t *testing.T) {
	t.Parallel()
	a := authority(t)
	old, one, two := newServerThat(t, a, "old", time.Hour, time.Hour), newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	old.relay.Point(old.addr)
	old.relay.Lead(active("old"))
	old.relay.Retire(time.Minute)
	one.relay.Lead(active("one"))
	two.relay.Point(old.addr)
	answers := make(chan string, 1)
	go func() {
		_, got := two.ask(t, two.public.URL, "POST", "/async/f", "body", "")
		answers <- got
	}()
	two.relay.Point(one.addr)
	if got := <-answers; !strings.HasPrefix(got, "one public") {
		t.Error(got)
	}
	old.relay.Point("")
	two.relay.Point(old.addr)
	go func() {
		_, got := two.ask(t, two.public.URL, "POST", "/async/f", "body", "")
		answers <- got
	}()
	old.relay.Lead(active("old again"))
	if got := <-answers; !strings.HasPrefix(got, "old again public") {
		t.Error(got)
	}
}

// What dies with the server that leads is done again where that harms nothing, body and all, but not without end.
func TestADeathIsNotTold(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	two.relay.Point(one.addr)
	large := strings.Repeat("x", room)
	for _, c := range []struct {
		method, key, body string
		deaths            int
		status            int
		want              string
	}{
		{"GET", "", "", 1, http.StatusOK, "GET "},
		{"GET", "", "", 10, http.StatusServiceUnavailable, "is not known"},
		{"POST", "k", "said", 2, http.StatusOK, "POST said"},
		{"POST", "", "said", 1, http.StatusServiceUnavailable, "is not known"},
		// As much of what is not small as there is room for, one after the other, and none that is larger than a message.
		{"POST", "k", large, 2, http.StatusOK, "POST " + large},
		{"POST", "k", large, 2, http.StatusOK, "POST " + large},
		{"POST", "k", large + "!", 1, http.StatusServiceUnavailable, "is not known"},
		{"POST", "k", strings.Repeat("x", 512<<10+1), 1, http.StatusServiceUnavailable, "is not known"},
	} {
		var asked atomic.Int64
		one.relay.Lead(relay.Active{Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if asked.Add(1) <= int64(c.deaths) {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, "%s %s", r.Method, b)
		})})
		var body io.Reader
		if c.method == "POST" {
			body = strings.NewReader(c.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), c.method, two.public.URL+"/async/f", body)
		if err != nil {
			t.Fatal(err)
		}
		if c.key != "" {
			req.Header.Set("Idempotency-Key", c.key)
		}
		resp, err := two.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(b), c.want) {
			t.Errorf("%s of %d bytes with the key %q, %d deaths: %s %.200s", c.method, len(c.body), c.key, c.deaths, resp.Status, b)
		}
	}
}

// A request without a key becomes one invocation under the name that it got where it came in, however often it is made again: after a death, after a
// refusal, and by the server that has it when that one leads itself.
func TestARequestKeepsItsName(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute)
	two.relay.Point(one.addr)
	names := make(chan string, 10)
	note := func(r *http.Request) string {
		b, _ := io.ReadAll(r.Body)
		name, _ := r.Context().Value(nameKey{}).(string)
		names <- fmt.Sprint(name, " ", r.Header.Get("Tatami-Relay-Invocation"), r.Header.Get("Tatami-Relay-Again"))
		return string(b)
	}
	var asked atomic.Int64
	one.relay.Lead(relay.Active{Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		switch asked.Add(1) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			problem.Write(w, r, fault.New(fault.CodeUnavailable, "nobody leads the stream"))
		default:
			two.relay.Lead(relay.Active{Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, note(r))
			})})
			panic(http.ErrAbortHandler)
		}
	})})
	if status, got := two.ask(t, two.public.URL, "POST", "/async/named", "said", ""); status != http.StatusOK || got != "said" {
		t.Errorf("%d %s", status, got)
	}
	for i, want := range []string{"name false ", "name true ", "name true ", "name true "} {
		if got := <-names; got != want {
			t.Errorf("the %d. time it has the name %q, want %q", i+1, got, want)
		}
	}
}

// A request is not left with a server that does not answer once another one leads; and what a client says of names counts for nothing.
func TestARequestFollowsWhoLeads(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two, next := newServer(t, a, "one", time.Minute), newServer(t, a, "two", time.Minute), newServer(t, a, "next", time.Minute)
	two.relay.Point(one.addr)
	begun, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	one.relay.Lead(relay.Active{Public: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-end
	})})
	next.relay.Lead(relay.Active{Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _ := r.Context().Value(nameKey{}).(string)
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%q %s %t", name, host, r.TLS != nil)
	})})
	answers := make(chan string, 1)
	go func() {
		_, got := two.ask(t, two.public.URL, "GET", "/async/f", "", "")
		answers <- got
	}()
	<-begun
	two.relay.Point(next.addr)
	if got := <-answers; got != `"" 127.0.0.1 false` {
		t.Error(got)
	}
}

// What a server that leads refuses is passed on when it has been refused for so long.
func TestARefusalIsPassedOn(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", 3*time.Second), newServer(t, a, "two", 3*time.Second)
	two.relay.Point(one.addr)
	var asked atomic.Int64
	one.relay.Lead(relay.Active{Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		problem.Write(w, r, fault.New(fault.CodeUnavailable, "nobody leads the stream"))
	})})
	if status, got := two.ask(t, two.public.URL, "POST", "/async/named", "said", ""); status != http.StatusServiceUnavailable || !strings.Contains(got, "nobody leads the stream") || asked.Load() < 2 {
		t.Errorf("asked %d times: %d %s", asked.Load(), status, got)
	}
	if status, _ := two.ask(t, two.public.URL, "POST", "/async/f", "said", ""); status != http.StatusServiceUnavailable {
		t.Errorf("%d", status)
	}
}

func TestNobodyLeads(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one, two := newServer(t, a, "one", 50*time.Millisecond), newServer(t, a, "two", 50*time.Millisecond)
	if status, got := one.ask(t, one.public.URL, "POST", "/async/f", "", ""); status != http.StatusServiceUnavailable || !strings.Contains(got, "no server leads") {
		t.Errorf("%d %s", status, got)
	}
	// Handed on to one that does not lead either, it is not handed on again.
	one.relay.Point(two.addr)
	two.relay.Point(one.addr)
	if status, got := one.ask(t, one.public.URL, "POST", "/async/f", "", ""); status != http.StatusServiceUnavailable || !strings.Contains(got, "no server leads") {
		t.Errorf("%d %s", status, got)
	}
}

// Only servers hand requests on.
func TestWhoIsNoServerGetsNothing(t *testing.T) {
	t.Parallel()
	a := authority(t)
	one := newServer(t, a, "one", time.Minute)
	one.relay.Lead(active("one"))
	worker := pki.NewOwnKeeper(func() *pki.Authority { return a }, pki.Subject{Role: pki.RoleWorker, Name: "nod_a"}, time.Hour)
	var conn *tls.Conn
	var err error
	for over := time.Now().Add(time.Minute); time.Now().Before(over); time.Sleep(5 * time.Millisecond) {
		if conn, err = tls.Dial("tcp", one.addr, worker.Reach(pki.Only(pki.RoleServer))); err == nil || !strings.Contains(err.Error(), "refused") {
			break
		}
	}
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/functions HTTP/1.1\r\nHost: localhost\r\nTatami-Relay: control\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		t.Errorf("a worker is answered: %s", resp.Status)
	}
}
