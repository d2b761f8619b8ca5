package join

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// conversation is a handler that does what HTTP can.
func conversation() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/cat", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Type", "application/grpc")
		flush := func() { w.(http.Flusher).Flush() }
		flush()
		for br := bufio.NewReader(r.Body); ; {
			line, err := br.ReadString('\n')
			if err != nil {
				break
			}
			fmt.Fprint(w, line)
			flush()
		}
		w.Header().Set("X-Sum", r.Trailer.Get("X-Ask")+" "+r.Proto)
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		_, _ = io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 8<<20)) })
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	return mux
}

// Whatever passes to an instance here passes to one on a joined worker: streams both ways, trailers, upgrades, over HTTP/1 and HTTP/2.
func TestEverythingPasses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := conversation()
	n := newNode(t, s, map[string]http.Handler{"one": h, "two": h})
	s.deploy("one", nil, n)
	s.deploy("two", func(c *functions.Config) { c.Protocol = functions.ProtocolH2C }, n)
	for fn, proto := range map[string]string{"one": "HTTP/1.1", "two": "HTTP/2.0"} {
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.front.URL+"/"+fn+"/cat", pr)
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Ask": nil}
		go fmt.Fprint(pw, "first\n")
		resp, err := s.front.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(resp.Body)
		for _, want := range []string{"first\n", "second\n"} {
			if want == "second\n" {
				fmt.Fprint(pw, want)
			}
			if line, err := br.ReadString('\n'); err != nil || line != want {
				t.Fatalf("%s: heard %q, %v", fn, line, err)
			}
		}
		req.Trailer.Set("X-Ask", "asked")
		pw.Close()
		if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 || resp.Trailer.Get("X-Sum") != "asked "+proto {
			t.Errorf("%s: ended with %q, %v, trailers %v", fn, rest, err, resp.Trailer)
		}
		resp.Body.Close()

		body := strings.Repeat("x", 8<<20)
		resp, err = s.front.Client().Post(s.front.URL+"/"+fn+"/sum", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(body))); string(got) != want {
			t.Errorf("%s: a large body arrived as %s", fn, got)
		}
		if status, large := s.get("/" + fn + "/large"); status != 200 || len(large) != 8<<20 {
			t.Errorf("%s: a large answer has %d bytes, status %d", fn, len(large), status)
		}
	}
	c, _, err := websocket.Dial(t.Context(), strings.Replace(s.front.URL, "http", "ws", 1)+"/one/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, msg := range []string{"one", strings.Repeat("x", 30_000)} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != msg {
			t.Fatalf("heard %d bytes, %v", len(got), err)
		}
	}
	n.until("one slot is held by one WebSocket, and none is kept any more", func() bool { return n.held() == 1 })
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	n.until("every slot is given back", func() bool { return n.held() == 0 })
}

// gate is a handler whose requests say that they have come, and wait.
type gate struct {
	come chan *http.Request
	open chan struct{}
}

func newGate() *gate { return &gate{come: make(chan *http.Request, 100), open: make(chan struct{})} }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.come <- r
	select {
	case <-g.open:
		fmt.Fprint(w, "open")
	case <-r.Context().Done():
	}
}

func (g *gate) await(t *testing.T) *http.Request {
	t.Helper()
	select {
	case r := <-g.come:
		return r
	case <-time.After(patience):
		t.Fatal("no request comes")
		return nil
	}
}

// The worker admits by its slots: no more than there are run, on whichever node, and whoever waits goes when one is free.
func TestSlotsAreTheWorkers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	g := newGate()
	a, b := newNode(t, s, map[string]http.Handler{"gate": g}), newNode(t, s, map[string]http.Handler{"gate": g})
	s.deploy("gate", func(c *functions.Config) { c.Concurrency = 2 }, a, b)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if status, body := s.get("/gate/"); status != 200 || body != "open" {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	for range 4 {
		g.await(t)
	}
	if a.held() != 2 || b.held() != 2 {
		t.Errorf("%d and %d slots are held", a.held(), b.held())
	}
	select {
	case <-g.come:
		t.Error("a fifth request runs")
	default:
	}
	close(g.open)
	wg.Wait()
	a.until("every slot is given back", func() bool { return a.held()+b.held() == 0 })
}

// A worker that refuses is passed over, before anything of the request's body was sent.
func TestARefusalIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := map[string]http.Handler{"sum": conversation()}
	a, b := newNode(t, s, h), newNode(t, s, h)
	rev := s.deploy("sum", nil)
	full, free := a.begin(s, rev), b.begin(s, rev)
	// Somebody else took every slot of one of them.
	for range rev.Config.Concurrency {
		if err := a.worker.Admit(a.id(), full); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		resp, err := s.front.Client().Post(s.front.URL+"/sum/sum", "text/plain", io.LimitReader(strings.NewReader(strings.Repeat("y", 1<<20)), 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || len(got) != 64 {
			t.Errorf("%s %s", resp.Status, got)
		}
	}
	b.until("its slots are given back", func() bool { return b.held() == 0 })
	if a.held() != rev.Config.Concurrency {
		t.Errorf("%d slots are held, of which %d are somebody else's", a.held(), rev.Config.Concurrency)
	}
	a.command(s, full, bus.ActionDrain, nil)
	b.command(s, free, bus.ActionDrain, nil)
}

// A caller that leaves is gone for the function, and so is every caller of a gateway that dies; each slot is given back once.
func TestEndsAreFelt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	g := newGate()
	n := newNode(t, s, map[string]http.Handler{"gate": g})
	s.deploy("gate", func(c *functions.Config) { c.Concurrency = 3 }, n)
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	call := func(ctx context.Context) {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "GET", s.front.URL+"/gate/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := s.front.Client().Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	felt := func(r *http.Request) {
		t.Helper()
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
			t.Fatal("the function still works for nobody")
		}
	}
	call(ctx)
	first := g.await(t)
	leave()
	felt(first)
	n.until("the slot is given back", func() bool { return n.held() == 0 })
	call(t.Context())
	call(t.Context())
	two := []*http.Request{g.await(t), g.await(t)}
	if n.held() != 2 {
		t.Errorf("%d slots are held", n.held())
	}
	s.cut()
	for _, r := range two {
		felt(r)
	}
	n.until("every slot is given back", func() bool { return n.held() == 0 })
	wg.Wait()
	close(g.open)
	s.stop()
	// The next gateway learns of the instance, and finds every slot free.
	s.start()
	for range 3 {
		if status, _ := s.get("/gate/"); status != 200 {
			t.Errorf("after the gateway's restart: %d", status)
		}
	}
}
