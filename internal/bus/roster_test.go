package bus_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// audited reads the audit log: event, and whatever else a line says.
func audited(t *testing.T, b *bus.Bus) []map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(b.DataDir(), bus.AuditFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []map[string]string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line map[string]string
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if _, err := time.Parse(time.RFC3339Nano, line["time"]); err != nil {
			t.Errorf("%q has no time", lines.Text())
		}
		out = append(out, line)
	}
	return out
}

// wantAudited waits until some line of the audit log has all of that: whoever gave up waiting for the server may know before it.
func wantAudited(t *testing.T, b *bus.Bus, event string, node functions.NodeID, says string) {
	t.Helper()
	for over := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		all := audited(t, b)
		for _, line := range all {
			if line["event"] == event && (node == "" || line["node"] == string(node)) && strings.Contains(line["err"]+line["reason"]+line["token"]+line["for"], says) {
				return
			}
		}
		if time.Now().After(over) {
			t.Fatalf("no line says %s of %q: %q; there are %v", event, node, says, all)
		}
	}
}

func newToken(t *testing.T, b *bus.Bus, node string) (bus.JoinToken, string) {
	t.Helper()
	tok, text, err := b.Roster().CreateToken(node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return tok, text
}

func state(t *testing.T, b *bus.Bus, id string) (string, functions.NodeID) {
	t.Helper()
	for _, tok := range b.Roster().Tokens() {
		if tok.ID == id {
			return tok.State(time.Now()), tok.By
		}
	}
	t.Fatalf("%s is not listed", id)
	return "", ""
}

// A token lets one worker join, once; whoever joined comes back by its key, with that token, another or none.
func TestATokenIsForOneWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _, stop := server(t, bus.Config{DataDir: dir})
	tok, text := newToken(t, b, "Rack-1.a")
	if got, _ := state(t, b, tok.ID); got != bus.TokenUnused {
		t.Errorf("the token is %s", got)
	}
	home := t.TempDir()
	first := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: text})
	node := first.Identity().Node
	if got, by := state(t, b, tok.ID); got != bus.TokenUsed || by != node {
		t.Errorf("the token is %s by %s", got, by)
	}
	_, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: text}, discard())
	wantCode(t, err, fault.CodeDenied)
	wantAudited(t, b, "refused", "", "the token "+tok.ID+" is used")
	for _, with := range []string{text, strings.Repeat("x", 48), ""} {
		first.Close(t.Context())
		first = join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: with})
	}
	first.Close(t.Context())
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	stop()
	b, _, _ = server(t, bus.Config{DataDir: dir, Listen: addr})
	if got, by := state(t, b, tok.ID); got != bus.TokenUsed || by != node {
		t.Errorf("after a restart the token is %s by %s", got, by)
	}
	join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL()})
	wantAudited(t, b, "token-created", "", "Rack-1.a")
	wantAudited(t, b, "worker-joined", node, tok.ID)
}

// A worker whose token is revoked is cut off at once, is told so, and cannot come back; others stay.
func TestARevokedTokenCutsItsWorkerOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, shared, stop := server(t, bus.Config{DataDir: dir})
	tok, text := newToken(t, b, "one")
	home := t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: text, DismissAfter: time.Millisecond})
	other := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: shared})
	gone := make(chan error, 1)
	go func() { gone <- l.Run(t.Context()) }()
	if got, err := b.Roster().RevokeToken(tok.ID); err != nil || got.By != l.Identity().Node {
		t.Fatalf("%+v, %v", got, err)
	}
	select {
	case err := <-gone:
		wantCode(t, err, fault.CodeDenied)
	case <-time.After(time.Minute):
		t.Fatal("the worker does not learn that it was cut off")
	}
	if l.Conn().IsConnected() || !other.Conn().IsConnected() {
		t.Error("the wrong worker is connected")
	}
	if _, err := other.Named(t.Context(), nil); err != nil {
		t.Error(err)
	}
	l.Close(t.Context())
	again := bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: shared}
	_, err := bus.Join(again, discard())
	wantCode(t, err, fault.CodeDenied)
	node := l.Identity().Node
	wantAudited(t, b, "token-revoked", "", tok.ID)
	wantAudited(t, b, "node-removed", node, tok.ID)
	wantAudited(t, b, "refused", node, "was removed")
	addr := strings.TrimPrefix(again.URL, "nats://")
	stop()
	b, _, _ = server(t, bus.Config{DataDir: dir, Listen: addr})
	_, err = bus.Join(again, discard())
	wantCode(t, err, fault.CodeDenied)
	if got, _ := state(t, b, tok.ID); got != bus.TokenRevoked {
		t.Errorf("after a restart the token is %s", got)
	}
	if got := b.Roster().Members(); len(got) != 1 || got[0] != other.Identity().Node {
		t.Errorf("may connect: %v", got)
	}
}

func TestTokensThatAreGoodForNothing(t *testing.T) {
	t.Parallel()
	b, _, _ := server(t, bus.Config{})
	tok, text := newToken(t, b, "one")
	if _, err := b.Roster().RevokeToken(tok.ID); err != nil {
		t.Fatal(err)
	}
	_, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: text}, discard())
	wantCode(t, err, fault.CodeDenied)
	if got := (&bus.JoinToken{Expires: time.Now()}).State(time.Now()); got != bus.TokenExpired {
		t.Errorf("at its end a token is %s", got)
	}
	_, err = b.Roster().RevokeToken("tok_none")
	wantCode(t, err, fault.CodeNotFound)
	wantCode(t, b.Roster().Remove(functions.NewNodeID(), "test"), fault.CodeNotFound)
	for node, life := range map[string]time.Duration{"": time.Hour, strings.Repeat("n", 254): time.Hour, "a\n": time.Hour, "rack 1": time.Hour, "a": time.Second, "b": 31 * 24 * time.Hour} {
		_, _, err := b.Roster().CreateToken(node, life)
		wantCode(t, err, fault.CodeInvalidRequest)
	}
	// Without the key nobody is anybody, whatever else is known.
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: sharedToken(t, b)})
	node := l.Identity().Node
	l.Close(t.Context())
	if nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(string(node), sharedToken(t, b)), nats.Secure(&tls.Config{InsecureSkipVerify: true})); err == nil {
		nc.Close()
		t.Error("a worker without a key was let in")
	}
	wantAudited(t, b, "refused", node, "no key of its own")
}

func sharedToken(t *testing.T, b *bus.Bus) string {
	t.Helper()
	token, err := bus.ReadToken(filepath.Join(b.DataDir(), bus.WorkerTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A worker that was bound by a secret goes on with a key, and by that key alone.
func TestASecretBecomesAKey(t *testing.T) {
	t.Parallel()
	dir, home := t.TempDir(), t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	node := l.Identity().Node
	l.Close(t.Context())
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	stop()
	const secret = "0123456789abcdef0123456789abcdef"
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(dir, bus.RosterFile, `{"schema":1,"workers":{"`+string(node)+`":"`+bus.HashOf(secret)+`"}}`)
	b, _, _ = server(t, bus.Config{DataDir: dir, Listen: addr})
	cfg := bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token}
	_, err := bus.Join(cfg, discard())
	wantCode(t, err, fault.CodeDenied)
	write(home, "join.secret", secret)
	join(t, cfg).Close(t.Context())
	if err := os.Remove(filepath.Join(home, "join.secret")); err != nil {
		t.Fatal(err)
	}
	join(t, cfg)
}

// What a worker says where it may not is in the audit log.
func TestOverreachIsAudited(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	other := functions.NewNodeID()
	if err := l.Conn().Publish(bus.ReportSubject(other), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Conn().SubscribeSync(bus.CommandSubject(other)); err != nil {
		t.Fatal(err)
	}
	if err := l.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	wantAudited(t, b, "refused", l.Identity().Node, "Publish Violation")
	wantAudited(t, b, "refused", l.Identity().Node, "Subscription Violation")
}
