package worker_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
	"github.com/tatami-faas/tatami/tests/wishes"
	"github.com/tatami-faas/tatami/worker"
)

// newListening is a world whose worker has a listener, and what its tables say of it.
func newListening(t *testing.T, change func(*worker.Config)) (*world, listening) {
	t.Helper()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var own pki.Subject
	w := newWorld(t, func(c *worker.Config) {
		own = pki.Subject{Role: pki.RoleWorker, Name: string(c.Node)}
		c.Listen, c.TLS = "127.0.0.1:0", func(refused func(error)) *tls.Config {
			return pki.NewOwnKeeper(func() *pki.Authority { return a }, own, time.Hour).Admit(pki.Only(pki.RoleServer), refused)
		}
		if change != nil {
			change(c)
		}
	})
	gateway := pki.NewOwnKeeper(func() *pki.Authority { return a }, pki.Subject{Role: pki.RoleServer, Name: "s"}, time.Hour)
	return w, listening{w.announced(""), gateway.Reach(pki.Just(own))}
}

// listening is a listener, and how a gateway reaches it.
type listening struct {
	bus.Listener
	tls *tls.Config
}

// announced is the listener that the first table with another token tells.
func (w *world) announced(old string) bus.Listener {
	w.t.Helper()
	at := w.await(0, "a table with a listener's new token", func(m message) bool {
		return m.table != nil && m.table.Listener != nil && m.table.Listener.Token != old
	})
	return *w.messages()[at].table.Listener
}

// gateway is a connection to the listener that was upgraded.
type gateway struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	// session is the name that the worker gave it.
	session string
}

// ask sends the head of a request and returns the answer.
func ask(t *testing.T, at listening, token, method, path, header, body string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := tls.Dial("tcp", at.Address, at.tls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s", method, path, token, header, len(body), body)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, conn, br
}

func upgraded(t *testing.T, at listening, path, protocol, session string) *gateway {
	t.Helper()
	resp, conn, br := ask(t, at, at.Token, "GET", path, "Connection: Upgrade\r\nUpgrade: "+protocol+"\r\n"+bus.HeaderSession+": "+session+"\r\n", "")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s: %v", path, bus.FaultOf(resp))
	}
	return &gateway{t, conn, br, resp.Header.Get(bus.HeaderSession)}
}

func session(t *testing.T, at listening) *gateway {
	t.Helper()
	return upgraded(t, at, bus.PathSession, bus.UpgradeSession, "")
}

func (g *gateway) say(lines string) {
	g.t.Helper()
	if _, err := io.WriteString(g.conn, lines); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) hear() string {
	g.t.Helper()
	line, err := g.br.ReadString('\n')
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// answer is what the worker says next that is no recall, without its word on what may be kept.
func (g *gateway) answer() string {
	g.t.Helper()
	for {
		if line := g.hear(); !strings.HasPrefix(line, "R 0 ") {
			return strings.TrimSuffix(line, " "+bus.SlotKeep)
		}
	}
}

// ended fails the test unless the worker closes the connection.
func (g *gateway) ended() {
	g.t.Helper()
	if rest, err := io.ReadAll(g.br); len(rest) > 0 || fault.From(err) != nil {
		g.t.Errorf("the connection goes on: %q, %v", rest, err)
	}
}

// held awaits that so many slots are.
func (w *world) held(id functions.InstanceID, n int) {
	w.t.Helper()
	from := len(w.messages())
	w.await(from, fmt.Sprintf("%d slots of %s held", n, id), func(m message) bool {
		if m.report == nil {
			return false
		}
		for _, r := range m.report.Instances {
			if r.Instance == id && r.Held == n {
				return true
			}
		}
		return false
	})
}

func TestASessionTakesSlotsAndGivesThemBack(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision())
	g := session(t, at)
	g.say("A 1 " + string(id) + "\nA 2 " + string(id) + "\nA 3 " + string(id) + "\nA 4 ins_none\nP 0 \n")
	for i, want := range []string{"Y 1", "Y 2", "N 3 instance " + string(id) + " has no free slot", "N 4 instance ins_none is gone", "Y 0"} {
		if got := g.answer(); got != want {
			t.Errorf("answer %d is %q, want %q", i, got, want)
		}
	}
	w.held(id, 2)
	// One that was not taken is not given back; what another session holds is not this one's.
	other := session(t, at)
	other.say("R 0 " + string(id) + "\nP 0 \n")
	if got := other.hear(); got != "Y 0" {
		t.Errorf("heard %q", got)
	}
	w.held(id, 2)
	g.say("R 0 " + string(id) + "\nA 5 " + string(id) + "\nR 0 " + string(id) + "\nP 0 \n")
	if a, p := g.answer(), g.answer(); a != "Y 5" || p != "Y 0" {
		t.Errorf("heard %q and %q", a, p)
	}
	w.held(id, 1)
	// A gateway that dies gives everything back, and nothing twice.
	g.conn.Close()
	w.held(id, 0)
	other.say("A 1 " + string(id) + "\nA 2 " + string(id) + "\nA 3 " + string(id) + "\n")
	if a, b, c := other.answer(), other.answer(), other.answer(); a != "Y 1" || b != "Y 2" || !strings.HasPrefix(c, "N 3 ") {
		t.Errorf("heard %q, %q, %q", a, b, c)
	}
}

func TestASessionThatMakesNoSenseEnds(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision())
	for _, nonsense := range []string{"hello\n", "Y 1 \n", strings.Repeat("A", 64<<10)} {
		g := session(t, at)
		g.say("A 1 " + string(id) + "\n")
		if got := g.answer(); got != "Y 1" {
			t.Fatalf("heard %q", got)
		}
		_, _ = io.WriteString(g.conn, nonsense)
		g.ended()
		w.held(id, 0)
	}
}

func TestATunnelIsTheInstancesConnection(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision())
	g := session(t, at)
	for range 2 {
		tunnel := upgraded(t, at, bus.PathTunnel+string(id), bus.UpgradeTunnel, g.session)
		for _, path := range []string{"/a", "/b"} {
			tunnel.say("GET " + path + " HTTP/1.1\r\nHost: f\r\n\r\n")
			resp, err := http.ReadResponse(tunnel.br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != string(id)+" "+path {
				t.Errorf("answered %q, %v", body, err)
			}
		}
	}
	tunnel := upgraded(t, at, bus.PathTunnel+string(id), bus.UpgradeTunnel, g.session)
	// The gateway's own end reaches the instance, whose end comes back.
	if err := tunnel.conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	tunnel.ended()
	// Without its session a tunnel is nobody's.
	tunnel = upgraded(t, at, bus.PathTunnel+string(id), bus.UpgradeTunnel, g.session)
	g.conn.Close()
	tunnel.ended()
	for name, c := range map[string]struct {
		inst, session string
		code          fault.Code
	}{
		"no session": {string(id), g.session, fault.CodeUnavailable},
		"no inst":    {"ins_none", session(t, at).session, fault.CodeNotFound},
	} {
		resp, _, _ := ask(t, at, at.Token, "GET", bus.PathTunnel+c.inst, "Connection: Upgrade\r\nUpgrade: "+bus.UpgradeTunnel+"\r\n"+bus.HeaderSession+": "+c.session+"\r\n", "")
		if err := bus.FaultOf(resp); !fault.Is(err, c.code) {
			t.Errorf("%s: %s %v", name, resp.Status, err)
		}
	}
}

func TestTheListenerKnowsItsRunsToken(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	for _, token := range []string{"", "x" + at.Token} {
		for _, path := range []string{bus.PathSession, bus.PathTunnel + "ins_a", bus.PathLogs, bus.PathExec} {
			if resp, _, _ := ask(t, at, token, "GET", path, "", ""); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with token %q: %s", path, token, resp.Status)
			}
		}
	}
	w.end()
	w.run()
	next := w.announced(at.Token)
	if resp, _, _ := ask(t, listening{next, at.tls}, at.Token, "GET", bus.PathSession, "", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("an earlier run's token: %s", resp.Status)
	}
}

// Who shows no server's certificate gets nothing, whatever token it has.
func TestTheListenerKnowsGateways(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var refused []string
	_, at := newListening(t, func(c *worker.Config) {
		c.Refused = func(_ string, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, err.Error())
		}
	})
	other, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger := pki.NewOwnKeeper(func() *pki.Authority { return other }, pki.Subject{Role: pki.RoleServer, Name: "s"}, time.Hour).Ask()
	stranger.InsecureSkipVerify = true
	for name, config := range map[string]*tls.Config{"nobody": {InsecureSkipVerify: true}, "another authority's": stranger} {
		c, err := tls.Dial("tcp", at.Address, config)
		if err == nil {
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer %s\r\n\r\n", bus.PathSession, at.Token)
			var answer []byte
			if answer, err = io.ReadAll(c); len(answer) > 0 {
				t.Errorf("%s is answered: %q", name, answer)
			}
			c.Close()
		}
		if err == nil {
			t.Errorf("%s is let in", name)
		}
	}
	if resp, _, _ := ask(t, at, "x", "GET", bus.PathSession, "", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("another token: %s", resp.Status)
	}
	mu.Lock()
	if len(refused) != 3 || !strings.Contains(refused[2], "token") {
		t.Errorf("told of are %q", refused)
	}
	mu.Unlock()
	plain, err := net.Dial("tcp", at.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fmt.Fprintf(plain, "GET %s HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", bus.PathSession, at.Token, bus.UpgradeSession)
	if resp, err := http.ReadResponse(bufio.NewReader(plain), nil); err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		t.Error("a session begins without TLS")
	}
}

// Short questions share a connection of HTTP/2.
func TestQuestionsOverHTTP2(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision())
	tr := &http.Transport{TLSClientConfig: at.tls, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	for range 3 {
		b, err := json.Marshal(bus.ExecRequest{Instance: id, Args: []string{"ls"}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+at.Address+bus.PathExec, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+at.Token)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		var out bus.ExecResult
		err = json.NewDecoder(resp.Body).Decode(&out)
		resp.Body.Close()
		if err != nil || out.Code != 3 || resp.ProtoMajor != 2 {
			t.Errorf("%s: %+v, %v", resp.Proto, out, err)
		}
	}
}

func TestLogsAndExecOverTheListener(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision("print:first"))
	q, err := json.Marshal(bus.LogQuery{Ref: functions.Ref{Namespace: "shop", Name: "cart"}, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	resp, _, _ := ask(t, at, at.Token, "POST", bus.PathLogs, "", string(q))
	events := json.NewDecoder(resp.Body)
	next := func() bus.LogEvent {
		t.Helper()
		var e bus.LogEvent
		if err := events.Decode(&e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var seen []string
	for e := next(); !e.Live; e = next() {
		seen = append(seen, e.Line.Text)
	}
	w.driver.box(id).write(w.driver.box(id).Info().Stderr, "second\n")
	for len(seen) == 0 || seen[len(seen)-1] != "second" {
		seen = append(seen, next().Line.Text)
	}
	if got := strings.Join(seen, " "); got != "first second" {
		t.Errorf("lines %q", got)
	}

	ask1 := func(q bus.ExecRequest) *http.Response {
		b, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		resp, _, _ := ask(t, at, at.Token, "POST", bus.PathExec, "", string(b))
		return resp
	}
	resp = ask1(bus.ExecRequest{Instance: id, Args: []string{"ls", "-l"}, Stdin: []byte("in")})
	var out bus.ExecResult
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Code != 3 || !bytes.Equal(out.Stdout, []byte("[ls -l] in")) {
		t.Errorf("exec gave %+v, %v", out, err)
	}
	if err := bus.FaultOf(ask1(bus.ExecRequest{Instance: "ins_none", Args: []string{"ls"}})); !fault.Is(err, fault.CodeNotFound) {
		t.Errorf("exec in an instance that is not there: %v", err)
	}
	if err := bus.FaultOf(ask1(bus.ExecRequest{Instance: id})); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("exec of nothing: %v", err)
	}
}

// What gateways elsewhere have under way ends before a worker leaves its instances to the next one.
func TestAWorkerThatLeavesItsInstancesAwaitsWhatRuns(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, func(c *worker.Config) { c.KeepInstances, c.DrainTimeout = true, patience })
	id := w.serving(revision())
	g := session(t, at)
	g.say("A 1 " + string(id) + "\n")
	if got := g.answer(); got != "Y 1" {
		t.Fatalf("heard %q", got)
	}
	from := len(w.messages())
	w.stop()
	w.await(from, "the worker drains", func(m message) bool { return m.report != nil && m.report.State.Draining })
	g.say("A 2 " + string(id) + "\n")
	if got := g.answer(); !strings.HasPrefix(got, "N 2 ") {
		t.Errorf("a worker that leaves takes requests: %q", got)
	}
	select {
	case err := <-w.ended:
		t.Fatalf("the worker ended with an invocation under way: %v", err)
	default:
	}
	g.say("R 0 " + string(id) + "\n")
	w.end()
	g.ended()
	w.cfg.KeepInstances = false
	w.run()
	w.state(id, functions.InstanceReady)
}

// What gateways elsewhere say keeps the processors awake, and so do the bytes of tunnels.
func TestGatewaysKeepProcessorsAwake(t *testing.T) {
	t.Parallel()
	keeper, told := wishes.New(t, awake.Calls)
	w, at := newListening(t, func(c *worker.Config) { c.Awake = keeper })
	id := w.serving(revision())
	g := session(t, at)
	tunnel := upgraded(t, at, bus.PathTunnel+string(id), bus.UpgradeTunnel, g.session)
	g.say("P 0 \n")
	if got := g.answer(); got != "Y 0" {
		t.Errorf("heard %q", got)
	}
	told.None("an open tunnel, and a sign of life")
	g.say("A 1 " + string(id) + "\n")
	told.Begins("a question for a slot")
	told.Settle()
	// Nobody answers half a request.
	for _, part := range []string{"GET /a HTTP/1.1\r\n", "Host: f\r\n"} {
		tunnel.say(part)
		told.Begins("bytes for the instance")
		told.Ends("a tunnel at rest")
	}
	tunnel.say("\r\n")
	resp, err := http.ReadResponse(tunnel.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	told.Begins("an answer")
	told.Settle()
}
