package nats_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/nats"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/certs"
)

// book keeps what is emitted and says when it has more.
type book struct {
	mu      sync.Mutex
	events  []functions.Event
	seen    map[string]int
	reached int
	lag     int64
	grown   chan struct{}
	// refuse, where set, is asked before an event is taken.
	refuse func(*functions.Event) error
}

func newBook() *book { return &book{seen: map[string]int{}, lag: -1, grown: make(chan struct{})} }

func (b *book) Emit(_ context.Context, ev *functions.Event, order string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if order != "" {
		return fault.New(fault.CodeInternal, "nobody asked for an order")
	}
	if b.refuse != nil {
		if err := b.refuse(ev); err != nil {
			return err
		}
	}
	b.events = append(b.events, *ev)
	b.seen[string(ev.Data)]++
	b.change()
	return nil
}

func (b *book) change() {
	close(b.grown)
	b.grown = make(chan struct{})
}

func (b *book) Reached() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reached++
	b.change()
}

func (b *book) Lag(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lag = n
	b.change()
}

// until waits until is reports true, which it is asked under the lock.
func (b *book) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		b.mu.Lock()
		done, grown := is(), b.grown
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// other is another NATS server, with JetStream, and a client of it.
func other(t *testing.T, opts server.Options, connect ...client.Option) (*server.Server, *client.Conn) {
	t.Helper()
	opts.Host, opts.JetStream, opts.NoSigs = "127.0.0.1", true, true
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
	srv, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the other server is not ready")
	}
	nc, err := client.Connect(srv.ClientURL(), append(connect, client.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return srv, nc
}

func addStream(t *testing.T, nc *client.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MAIL", Subjects: []string{"mail.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// publish stores messages n in from..to.
func publish(t *testing.T, js jetstream.JetStream, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		m := client.NewMsg("mail.in")
		m.Data = []byte(strconv.Itoa(n))
		m.Header.Set("content-type", "text/plain")
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func trigger(url string, change func(*functions.NATSSource)) functions.Trigger {
	n := &functions.NATSSource{Servers: []string{url}, Stream: "MAIL", Start: functions.StartEarliest}
	if change != nil {
		change(n)
	}
	return functions.Trigger{Namespace: "default", Name: "mail", Function: "f", NATS: n}.WithDefaults()
}

// run lets a source run, started again where it fails as the hub does it, until the returned function is called.
func run(t *testing.T, tr functions.Trigger, b *book) func() {
	t.Helper()
	if err := tr.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := nats.New(tr, b, slog.New(slog.DiscardHandler)).Run(ctx); err != nil {
				t.Logf("Run: %v", err)
			}
		}
	}()
	return func() { stop(); <-done }
}

func TestMessagesOfAStream(t *testing.T) {
	t.Parallel()
	srv, nc := other(t, server.Options{})
	js := addStream(t, nc)
	publish(t, js, 0, 50)
	b := newBook()
	stop := run(t, trigger(srv.ClientURL(), nil), b)
	b.until(t, "all messages and no lag", func() bool { return len(b.seen) == 50 && b.lag == 0 })
	publish(t, js, 50, 60)
	b.until(t, "those that come later", func() bool { return len(b.seen) == 60 && b.lag == 0 })
	stop()
	ev := b.events[0]
	if err := ev.Validate(); err != nil || ev.Type != nats.Type || ev.Source != "/nats/MAIL" || ev.Subject != "mail.in" || ev.DataContentType != "text/plain" ||
		ev.Extensions["natsstream"] != "MAIL" || ev.Extensions["natssequence"] == "" || ev.Time.IsZero() {
		t.Errorf("%+v, %v", ev, err)
	}
	ids := map[string]bool{}
	for _, ev := range b.events {
		ids[ev.ID] = true
	}
	if len(ids) != len(b.seen) {
		t.Errorf("%d names for %d messages", len(ids), len(b.seen))
	}
	// The next one goes on where this one was; another consumer begins where it is told to.
	next := newBook()
	stop = run(t, trigger(srv.ClientURL(), nil), next)
	publish(t, js, 60, 63)
	next.until(t, "the new ones", func() bool { return len(next.seen) == 3 && next.lag == 0 })
	stop()
	late := newBook()
	stop = run(t, trigger(srv.ClientURL(), func(n *functions.NATSSource) { n.Group, n.Start, n.Subject = "late", "", "mail.in" }), late)
	late.until(t, "the consumer", func() bool { return late.lag >= 0 })
	publish(t, js, 63, 64)
	late.until(t, "what came after it", func() bool { return len(late.seen) > 0 })
	stop()
	if len(late.seen) != 1 || late.seen["63"] != 1 {
		t.Errorf("%v", late.seen)
	}
}

// What is not durable is not acknowledged: a source that ends in between leaves it to the next one, as the same events.
func TestNothingIsAcknowledgedBeforeItIsDurable(t *testing.T) {
	t.Parallel()
	srv, nc := other(t, server.Options{})
	js := addStream(t, nc)
	publish(t, js, 0, 20)
	first := newBook()
	refused := map[string]bool{}
	first.refuse = func(ev *functions.Event) error {
		if n, _ := strconv.Atoi(string(ev.Data)); n < 10 {
			return nil
		}
		refused[ev.ID] = true
		first.change()
		return fault.New(fault.CodeQueueFull, "full")
	}
	stop := run(t, trigger(srv.ClientURL(), nil), first)
	first.until(t, "one half taken, the other refused", func() bool { return len(first.seen) == 10 && len(refused) == 10 })
	stop()
	second := newBook()
	stop = run(t, trigger(srv.ClientURL(), nil), second)
	second.until(t, "the rest", func() bool {
		for n := 10; n < 20; n++ {
			if second.seen[strconv.Itoa(n)] == 0 {
				return false
			}
		}
		return second.lag == 0
	})
	stop()
	for _, ev := range second.events {
		if n, _ := strconv.Atoi(string(ev.Data)); n >= 10 && !refused[ev.ID] {
			t.Errorf("%s is another event than before", ev.Data)
		}
	}
}

// A message that can be no invocation is let go for good, and does not hold the others up.
func TestWhatCanBeNoInvocation(t *testing.T) {
	t.Parallel()
	srv, nc := other(t, server.Options{})
	js := addStream(t, nc)
	publish(t, js, 0, 9)
	b := newBook()
	b.refuse = func(ev *functions.Event) error {
		if string(ev.Data) == "4" {
			return fault.New(fault.CodeHeaderTooLarge, "no")
		}
		return nil
	}
	stop := run(t, trigger(srv.ClientURL(), nil), b)
	b.until(t, "the others", func() bool { return len(b.seen) == 8 && b.lag == 0 })
	stop()
}

// A server that goes and comes back loses no message of a stream.
func TestTheServerRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, nc := other(t, server.Options{StoreDir: dir})
	js := addStream(t, nc)
	publish(t, js, 0, 5)
	b := newBook()
	stop := run(t, trigger(srv.ClientURL(), nil), b)
	defer stop()
	b.until(t, "the first", func() bool { return len(b.seen) == 5 })
	opts := server.Options{StoreDir: dir, Port: srv.Addr().(*net.TCPAddr).Port}
	srv.Shutdown()
	srv.WaitForShutdown()
	_, nc = other(t, opts)
	if js, err := jetstream.New(nc); err != nil {
		t.Fatal(err)
	} else {
		publish(t, js, 5, 10)
	}
	b.until(t, "those after it", func() bool { return len(b.seen) == 10 && b.lag == 0 })
}

// Of a queue group one member gets a message; one with a name is the same event when it comes again.
func TestMessagesOfASubject(t *testing.T) {
	t.Parallel()
	srv, nc := other(t, server.Options{})
	subject := trigger(srv.ClientURL(), func(n *functions.NATSSource) { n.Stream, n.Start, n.Subject = "", "", "orders.*" })
	b := newBook()
	for range 2 {
		defer run(t, subject, b)()
	}
	for srv.NumSubscriptions() < 2 || subscribers(t, srv, "orders.*") < 2 {
		time.Sleep(time.Millisecond)
	}
	const n = 100
	for i := range n {
		m := client.NewMsg("orders.new")
		m.Data = []byte(strconv.Itoa(i))
		m.Header.Set(client.MsgIdHdr, "id-"+strconv.Itoa(i/2))
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish("orders.nameless", nil); err != nil {
		t.Fatal(err)
	}
	b.until(t, "all messages", func() bool { return len(b.events) == n+1 })
	ids := map[string]bool{}
	for _, ev := range b.events {
		ids[ev.ID] = true
		if err := ev.Validate(); err != nil || ev.Source != "/nats/"+ev.Subject {
			t.Errorf("%+v, %v", ev, err)
		}
	}
	if len(ids) != n/2+1 {
		t.Errorf("%d names", len(ids))
	}
}

// subscribers counts who listens on a subject.
func subscribers(t *testing.T, srv *server.Server, subject string) int {
	t.Helper()
	z, err := srv.Connz(&server.ConnzOptions{Subscriptions: true})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range z.Conns {
		for _, s := range c.Subs {
			if s == subject {
				n++
			}
		}
	}
	return n
}

// The source shows who it is, and trusts whom it is told to.
func TestUserAndTLS(t *testing.T) {
	t.Parallel()
	pair := certs.New(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, nc := other(t, server.Options{TLS: true, TLSConfig: pair.Server, Username: "u", Password: "hush"}, client.Secure(pair.Client), client.UserInfo("u", "hush"))
	publish(t, addStream(t, nc), 0, 3)
	good := trigger(srv.ClientURL(), func(n *functions.NATSSource) {
		n.TLS, n.CA, n.User, n.Password = true, pair.File, "u", functions.SecretRef{File: password}
	})
	b := newBook()
	stop := run(t, good, b)
	b.until(t, "all messages", func() bool { return len(b.seen) == 3 })
	stop()
	for name, change := range map[string]func(*functions.NATSSource){
		"no trust":    func(n *functions.NATSSource) { n.CA = "" },
		"no CA there": func(n *functions.NATSSource) { n.CA = password + "-none" },
		"no CA in it": func(n *functions.NATSSource) { n.CA = password },
		"no password": func(n *functions.NATSSource) { n.Password.File = password + "-none" },
		"wrong user":  func(n *functions.NATSSource) { n.User = "v" },
		"no user":     func(n *functions.NATSSource) { n.User, n.Password = "", functions.SecretRef{} },
		"no creds": func(n *functions.NATSSource) {
			n.User, n.Password, n.Credentials = "", functions.SecretRef{}, password+"-none"
		},
		"other stream": func(n *functions.NATSSource) { n.Stream = "NONE" },
	} {
		tr := good
		n := *good.NATS
		change(&n)
		tr.NATS = &n
		if err := tr.Validate(); err != nil {
			t.Fatal(err)
		}
		if err := nats.New(tr, newBook(), slog.New(slog.DiscardHandler)).Run(t.Context()); !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
