package bus_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

func readAuthority(t *testing.T, dir string) *pki.Authority {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, bus.AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	a, err := pki.ParseAuthority(data)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run runs the link's own part until the test ends.
func runLink(t *testing.T, l *bus.Link) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- l.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return ended
}

// serial is the number of the certificate in a worker's data directory, and when it ends.
func serial(t *testing.T, home string) (string, time.Time) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(home, "node.pem"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := pki.ParseIdentity(data)
	if err != nil {
		t.Fatal(err)
	}
	return i.Serial(), i.Until()
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for over := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(over) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// shortLife is the life of certificates whose end a test waits for: so long that they are good until then on a machine that stands still for a while.
// X.509 counts in whole seconds, and cuts off what is over.
const shortLife = 6 * time.Second

// A worker tells its secret only to the server that the token is of.
func TestTheFirstContactIsAuthenticated(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	secret, pin, _ := strings.Cut(token, ".")
	if pin != readAuthority(t, b.DataDir()).Trust().Pin() {
		t.Fatalf("the token %s names no authority", token)
	}
	_, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: secret + "." + strings.Repeat("0", 64)}, discard())
	wantCode(t, err, fault.CodeDenied)
	if !strings.Contains(err.Error(), "not the one of the token") {
		t.Error(err)
	}
	_, err = bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: secret}, discard())
	wantCode(t, err, fault.CodeInvalidRequest)
	// Whoever has met the server needs no token, and is not taken in by another server.
	home := t.TempDir()
	join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token}).Close(t.Context())
	other, _, _ := server(t, bus.Config{})
	_, err = bus.Join(bus.JoinConfig{DataDir: home, URL: other.ListenURL()}, discard())
	wantCode(t, err, fault.CodeDenied)
	join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL()})
}

// A server of the time before certificates had the secret alone in its file; the workers that know it read the file again.
func TestAnOldTokenIsCompleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const secret = "0123456789abcdef0123456789abcdef0123456789abcdef"
	if err := os.WriteFile(filepath.Join(dir, bus.WorkerTokenFile), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, token, _ := server(t, bus.Config{DataDir: dir})
	if !strings.HasPrefix(token, secret+".") {
		t.Errorf("the secret is another one: %s", token)
	}
	join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
}

// Who shows a certificate that is not good as the node's worker gets nothing, although the key is right; and that is written down.
func TestCertificatesThatAreRefused(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	home := t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	node := l.Identity().Node
	l.Close(t.Context())
	key, err := nats.NkeyOptionFromSeed(filepath.Join(home, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	authority := readAuthority(t, b.DataDir())
	self := pki.Subject{Role: pki.RoleWorker, Name: string(node)}
	try := func(a *pki.Authority, s pki.Subject, left time.Duration) error {
		t.Helper()
		config := showing(t, a, s, left)
		nc, err := nats.Connect(b.ListenURL(), patient, key, nats.UserInfo(string(node), token), nats.Secure(config), nats.CustomInboxPrefix("_INBOX_"+string(node)))
		if err == nil {
			nc.Close()
		}
		return err
	}
	for says, err := range map[string]error{
		"ended at":          try(authority, self, -time.Second),
		"another authority": try(own, self, time.Hour),
		"that of tatami://worker/" + string(node) + " is wanted": try(authority, pki.Subject{Role: pki.RoleWorker, Name: string(functions.NewNodeID())}, time.Hour),
		"is of tatami://server/":                                 try(authority, pki.Subject{Role: pki.RoleServer, Name: "s"}, time.Hour),
	} {
		if err == nil {
			t.Errorf("let in: %s", says)
		}
		wantAudited(t, b, "refused", node, says)
	}
	if err := try(authority, self, time.Hour); err != nil {
		t.Errorf("the right one: %v", err)
	}
	// Without one, a worker may ask for one and nothing else.
	nc, err := nats.Connect(b.ListenURL(), patient, key, nats.UserInfo(string(node), ""), nats.Secure(&tls.Config{InsecureSkipVerify: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish(bus.ReportSubject(node), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.SubscribeSync(bus.CommandSubject(node)); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	wantAudited(t, b, "refused", node, "Publish Violation")
	wantAudited(t, b, "refused", node, "Subscription Violation")
	wantAudited(t, b, "certificate-issued", node, "")
	if nc, err := nats.Connect(b.ListenURL(), patient, key, nats.UserInfo(string(node), token)); err == nil {
		nc.Close()
		t.Error("a worker is let in without TLS")
	}
}

// Certificates are replaced before they end, and the connection stays.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{CertificateLife: shortLife})
	home := t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	runLink(t, l)
	first, ends := serial(t, home)
	until(t, "the certificate is replaced, and the first one has ended", func() bool {
		now, _ := serial(t, home)
		return now != first && time.Now().After(ends)
	})
	if _, err := l.Named(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if n := l.Conn().Stats().Reconnects; n != 0 {
		t.Errorf("the worker connected %d times again", n)
	}
}

// A worker whose certificate ended while its server was away gets another one by its key, without a token.
func TestACertificateThatEndedIsReplaced(t *testing.T) {
	t.Parallel()
	dir, home := t.TempDir(), t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir, CertificateLife: shortLife})
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	stop()
	first, ends := serial(t, home)
	until(t, "the certificate ends", func() bool { return time.Now().After(ends) })
	server(t, bus.Config{DataDir: dir, Listen: addr})
	if _, err := l.Named(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	l.Close(t.Context())
	if now, _ := serial(t, home); now == first {
		t.Error("the certificate is the one that ended")
	}
	until(t, "a worker starts anew", func() bool {
		l, err := bus.Join(bus.JoinConfig{DataDir: home, URL: "nats://" + addr}, discard())
		if err == nil {
			l.Close(t.Context())
		}
		return err == nil
	})
}

// A worker that was removed while it was away, and starts before its server, ends when the server tells it so.
func TestARemovedWorkerThatStartsFirst(t *testing.T) {
	t.Parallel()
	dir, home := t.TempDir(), t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	l.Close(t.Context())
	if err := b.Roster().Remove(l.Identity().Node, "test"); err != nil {
		t.Fatal(err)
	}
	stop()
	again := join(t, bus.JoinConfig{DataDir: home, URL: "nats://" + addr, Token: token, DismissAfter: time.Millisecond})
	ended := runLink(t, again)
	server(t, bus.Config{DataDir: dir, Listen: addr})
	select {
	case err := <-ended:
		wantCode(t, err, fault.CodeDenied)
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
}

// showing is how one connects who shows a certificate of an authority, which is good for so long, and asks for none that can be trusted.
func showing(t *testing.T, a *pki.Authority, who pki.Subject, left time.Duration) *tls.Config {
	t.Helper()
	i, err := a.Identify(who, left, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k := pki.NewKeeper()
	k.Install(i)
	config := k.Ask()
	config.InsecureSkipVerify = true
	return config
}
