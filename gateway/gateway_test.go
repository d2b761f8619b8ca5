package gateway

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// run starts a gateway and returns it with a function that ends it and gives Run's error.
func run(t *testing.T, cfg Config, public, control http.Handler) (*Gateway, func() error) {
	t.Helper()
	g, err := New(cfg, public, control, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stop := func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			t.Fatal("Run did not end")
			return nil
		}
	}
	select {
	case <-g.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return g, stop
}

func say(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		network := r.Context().Value(http.LocalAddrContextKey).(net.Addr).Network()
		_, _ = io.WriteString(w, s+" "+network+" "+r.Proto)
	})
}

func get(t *testing.T, network, addr string, h2c bool) string {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	defer tr.CloseIdleConnections()
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get("http://x/")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func TestListeners(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "control.sock")
	// Left behind by a process that died.
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"}); err != nil {
		t.Fatal(err)
	} else {
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0", ControlAddr: "127.0.0.1:0", ControlSocket: sock}, say("public"), say("control"))
	a := g.Addrs()
	for _, c := range []struct {
		network, addr string
		h2c           bool
		want          string
	}{
		{"tcp", a.Public, false, "public tcp HTTP/1.1"}, {"tcp", a.Public, true, "public tcp HTTP/2.0"},
		{"tcp", a.Control, false, "control tcp HTTP/1.1"}, {"unix", a.Socket, false, "control unix HTTP/1.1"},
	} {
		if got := get(t, c.network, c.addr, c.h2c); got != c.want {
			t.Errorf("%s %s: %q", c.network, c.addr, got)
		}
	}
	st, err := os.Stat(sock)
	if err != nil {
		t.Fatal(err)
	}
	if mode := st.Mode().Perm(); mode != 0o600 && mode != 0o660 || mode == 0o660 && st.Sys().(*syscall.Stat_t).Gid == 0 {
		t.Errorf("the socket has mode %o", mode)
	}
	entries, _ := os.ReadDir(filepath.Dir(sock))
	if len(entries) != 1 {
		t.Errorf("left beside the socket: %v", entries)
	}

	// What is taken is not taken again, and the fault names the flag.
	for _, c := range []struct {
		cfg  Config
		flag string
	}{
		{Config{PublicAddr: a.Public}, "public-addr"}, {Config{PublicAddr: "127.0.0.1:0", ControlAddr: a.Control}, "control-addr"},
		{Config{PublicAddr: "127.0.0.1:0", ControlSocket: sock}, "run-dir"}, {Config{PublicAddr: "nonsense"}, "public-addr"},
		{Config{PublicAddr: "192.0.2.1:80"}, "public-addr"},
	} {
		other, err := New(c.cfg, say(""), say(""), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		err = other.Run(t.Context())
		if e := fault.From(err); e == nil || e.Field != c.flag || !strings.Contains(e.Hint, "--"+c.flag) && !strings.Contains(e.Hint, "host:port") {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	if got := get(t, "unix", sock, false); got != "control unix HTTP/1.1" {
		t.Errorf("a second server took the socket: %q", got)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := os.Stat(sock); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{}, {PublicAddr: "x:1", MaxHeader: 5}, {PublicAddr: "x:1", DrainTimeout: -1}, {PublicAddr: "x:1", Domain: "a/b"}, {PublicAddr: "x:1", MaxBody: -1}} {
		if _, err := New(c, nil, nil, slog.New(slog.DiscardHandler)); fault.CodeOf(err) != fault.CodeInvalidRequest || fault.From(err).Field == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// At the end a request under way is answered, a new connection is refused.
func TestDrain(t *testing.T) {
	t.Parallel()
	began, finish := make(chan struct{}), make(chan struct{})
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-finish
		if !isDraining(r) {
			t.Error("the request does not see the drain")
		}
		_, _ = io.WriteString(w, "done")
	}), say("control"))
	got := make(chan string, 1)
	go func() { got <- get(t, "tcp", g.Addrs().Public, false) }()
	<-began
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for {
		c, err := net.Dial("tcp", g.Addrs().Public)
		if err != nil {
			break
		}
		c.Close()
	}
	close(finish)
	if body := <-got; body != "done" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// What does not end within the drain timeout is cut, with the reason: a request, an event stream of the control API, an upgraded connection.
func TestDrainCuts(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 3)
	causes := make(chan error, 3)
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
		}
		began <- struct{}{}
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	})
	sock := filepath.Join(t.TempDir(), "c.sock")
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0", ControlSocket: sock, DrainTimeout: 100 * time.Millisecond}, hang, hang)
	for _, c := range []struct{ network, addr, head string }{
		{"tcp", g.Addrs().Public, ""}, {"tcp", g.Addrs().Public, "Connection: Upgrade\r\nUpgrade: x\r\n"}, {"unix", sock, ""},
	} {
		conn, err := net.Dial(c.network, c.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+c.head+"\r\n")
		<-began
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 3 {
		if err := <-causes; !fault.Is(err, fault.CodeDraining) {
			t.Errorf("the cause is %v", err)
		}
	}
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0", MaxHeader: 2048}, say("public"), say("control"))
	c, err := net.Dial("tcp", g.Addrs().Public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 10_000)+"\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 431 {
		t.Errorf("%v, %v", resp, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
