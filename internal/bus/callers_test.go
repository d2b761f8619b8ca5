package bus_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// caller connects as a new caller, with the stock client.
func caller(t *testing.T, b *bus.Bus, namespaces ...string) (*nats.Conn, bus.Caller) {
	t.Helper()
	c, password, err := b.Callers().Create("tester", namespaces)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(c.ID, password), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, c
}

// A client that knows nothing of Tatami but the authority's certificate checks whom it speaks to, by the address that it connects to.
func TestACallerChecksTheServersCertificate(t *testing.T) {
	t.Parallel()
	b, _, _ := server(t, bus.Config{})
	c, password, err := b.Callers().Create("tester", []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(authority string) error {
		nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(c.ID, password), nats.RootCAs(authority), nats.Secure(&tls.Config{MinVersion: tls.VersionTLS13}))
		if err != nil {
			return err
		}
		defer nc.Close()
		if _, err := nc.TLSConnectionState(); err != nil {
			t.Errorf("it does not speak TLS: %v", err)
		}
		_, err = nc.Request("fn.default.f", nil, 20*time.Second)
		if errors.Is(err, nats.ErrNoResponders) {
			err = nil
		}
		return err
	}
	if err := connect(filepath.Join(b.DataDir(), bus.AuthorityFile)); err != nil {
		t.Error(err)
	}
	other, _, _ := server(t, bus.Config{})
	if err := connect(filepath.Join(other.DataDir(), bus.AuthorityFile)); err == nil {
		t.Error("another authority's server is taken for it")
	}
}

// wantAudit waits until the audit log has a line with all of the texts.
func wantAudit(t *testing.T, b *bus.Bus, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(b.DataDir(), bus.AuditFile))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for line := range bytes.Lines(log) {
			if !slices.ContainsFunc(texts, func(s string) bool { return !bytes.Contains(line, []byte(s)) }) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the audit log does not tell of %q:\n%s", texts, log)
		}
	}
}

// What a caller says comes out under its own name, on the subjects of its namespaces only, and it hears its own answers and results only.
func TestACallerSaysAndHearsOnlyWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	b, _, _ := server(t, bus.Config{})
	nc, own := caller(t, b, "default", "shop")
	other, foreign := caller(t, b, "shop")
	node := functions.NewNodeID()

	all := &heard{more: make(chan struct{}, 1)}
	if _, err := b.Conn().Subscribe(">", all.take); err != nil {
		t.Fatal(err)
	}
	if err := b.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		"fn.secret.f", "fn.default", "fn.default.f.x", "fn.default.f." + foreign.ID, "fn.>", "result.inv_x", "result.inv_x." + foreign.ID, bus.CommandSubject(node),
		bus.ReportSubject(node), bus.SubjectDemand, "inv.a.b", "key.x", "$KV.functions.default.f", "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.PURGE.INV",
		"$SYS.REQ.SERVER.PING", "_INBOX.x", "_R_.x", "$SYS.REQ.USER.INFO",
	} {
		if err := nc.PublishRequest(subject, bus.CommandSubject(node), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish("fn.shop.f", nil); err != nil {
		t.Fatal(err)
	}
	for _, subject := range all.until(t, "fn.shop.f."+own.ID) {
		if subject != "fn.shop.f."+own.ID {
			t.Errorf("said on %s", subject)
		}
	}
	// Nothing is said for it on a subject of its choice.
	answers, err := b.Conn().QueueSubscribe(bus.SubjectCalls, bus.GroupGateways, func(m *nats.Msg) { _ = m.Respond([]byte("answer to " + m.Subject)) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := nc.PublishRequest("fn.default.g", bus.CommandSubject(node), nil); err != nil {
		t.Fatal(err)
	}

	mine, theirs := &heard{more: make(chan struct{}, 1)}, &heard{more: make(chan struct{}, 1)}
	for _, subject := range []string{">", "fn.>", "result.>", "result.*.*", "tatami.>", "$KV.>", "inv.>", "_R_.>", "$SYS.>", "$JS.>", "result.*", "_INBOX.>"} {
		if _, err := nc.Subscribe(subject, mine.take); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Subscribe(subject, theirs.take); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(nc.Flush(), other.Flush()); err != nil {
		t.Fatal(err)
	}
	answer, err := nc.Request("fn.default.f", []byte("x"), 20*time.Second)
	if err != nil || string(answer.Data) != "answer to fn.default.f."+own.ID {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, subject := range []string{bus.ResultSubject("inv_a", own.ID), bus.ResultSubject("inv_b", foreign.ID), "result.inv_c", bus.SubjectDemand, "_INBOX.y", "inv.a.b"} {
		if err := b.Conn().Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	for want, h := range map[string]*heard{"result.inv_a": mine, "result.inv_b": theirs} {
		for _, subject := range h.until(t, want) {
			if subject != want && (h != mine || !strings.HasPrefix(subject, "_INBOX.")) {
				t.Errorf("heard %s beside %s", subject, want)
			}
		}
	}
	all.mu.Lock()
	if slices.Contains(all.subjects, bus.CommandSubject(node)) {
		t.Error("a caller had an answer sent to a worker")
	}
	all.mu.Unlock()
	wantAudit(t, b, `"refused"`, own.ID, "Publish Violation", "fn.secret.f")
	wantAudit(t, b, `"refused"`, own.ID, "Subscription Violation", "inv.>")
	wantAudit(t, b, `"refused"`, foreign.ID, "Subscription Violation", "tatami.>")
}

func TestACallerHearsTheRecordsThatGoToItsNamespaces(t *testing.T) {
	t.Parallel()
	b, _, _ := server(t, bus.Config{})
	nc, own := caller(t, b, "default", "shop")
	every, _ := caller(t, b, bus.AllNamespaces)
	mine, its := &heard{more: make(chan struct{}, 1)}, &heard{more: make(chan struct{}, 1)}
	for _, subject := range []string{"dest.>", "dest.secret.>", "dest.default.>", "dest.shop.>"} {
		if _, err := nc.Subscribe(subject, mine.take); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := every.Subscribe("dest.*.>", its.take); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(nc.Flush(), every.Flush()); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"secret", "default", "shop"} {
		if err := b.Conn().Publish(bus.DestinationSubject(namespace, "done.x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	mine.until(t, "dest.default.done.x")
	if got := mine.until(t, "dest.shop.done.x"); len(got) != 2 {
		t.Errorf("a caller hears %q", got)
	}
	if got := its.until(t, "dest.shop.done.x"); len(got) != 3 {
		t.Errorf("a caller of every namespace hears %q", got)
	}
	wantAudit(t, b, `"refused"`, own.ID, "Subscription Violation", "dest.secret.>")
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, shared, stop := server(t, bus.Config{DataDir: dir})
	all, password, err := b.Callers().Create("everything", []string{bus.AllNamespaces})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(user, password string) {
		t.Helper()
		nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(user, password))
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("user %q: %v", user, err)
		}
		if nc != nil {
			nc.Close()
		}
	}
	refused(all.ID, "wrong")
	refused(all.ID, "")
	refused(all.ID, shared)
	refused("tok_nobody", password)
	refused("tok_>", password)
	refused("tok_"+strings.Repeat("x", 1000), password)
	refused("", password)
	if nc, err := nats.Connect(b.ListenURL(), patient); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("nobody in particular: %v", err)
		nc.Close()
	}
	wantAudit(t, b, `"refused"`, all.ID, "the password is wrong", `"remote":"127.`)
	wantAudit(t, b, `"refused"`, "tok_nobody", "not known")
	wantAudit(t, b, `"refused"`, `"tok_?"`, "not known")
	wantAudit(t, b, `"caller-created"`, all.ID, "everything")

	for name, namespaces := range map[string][]string{"": {"default"}, "a": nil, "b": {"*", "default"}, "c": {"UPPER"}, "d": {"x", "x"}, "e\n": {"x"}, "f": {"a.b"}, "g": {">"}} {
		_, _, err := b.Callers().Create(name, namespaces)
		wantCode(t, err, fault.CodeInvalidRequest)
	}
	_, err = b.Callers().Revoke("tok_nobody")
	wantCode(t, err, fault.CodeNotFound)

	// It is known after a restart, whose end it waits for; revoked it is cut off, and nobody else is.
	stop()
	b, _, _ = server(t, bus.Config{DataDir: dir})
	closed := make(chan struct{})
	nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(all.ID, password), nats.ClosedHandler(func(*nats.Conn) { close(closed) }), nats.ReconnectWait(time.Millisecond),
		nats.ReconnectErrHandler(func(*nats.Conn, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	bystander, _ := caller(t, b, "default")
	if _, err := b.Callers().Revoke(all.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("a revoked caller is still connected")
	}
	refused(all.ID, password)
	if err := bystander.Flush(); err != nil {
		t.Errorf("another caller: %v", err)
	}
	wantAudit(t, b, `"caller-revoked"`, all.ID)
	if got := b.Callers().List(); len(got) != 2 || got[0].Revoked.IsZero() || !got[1].Revoked.IsZero() {
		t.Errorf("%+v", got)
	}
}

// A file that cannot be what it was is not taken for an empty one.
func TestTheFileOfCallers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, _, stop := server(t, bus.Config{DataDir: dir})
	stop()
	for _, text := range []string{
		"", "{}", `{"schema":2,"callers":{}}`, `{"schema":1}`, `{"schema":1,"callers":{"tok_a":null}}`, `{"schema":1,"callers":{"tok_a":{"id":"tok_b","namespaces":["x"]}}}`,
		`{"schema":1,"callers":{"tok_>":{"id":"tok_>","namespaces":["x"]}}}`, `{"schema":1,"callers":{"tok_a":{"id":"tok_a","namespaces":["x.>"]}}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, bus.CallersFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := bus.Open(t.Context(), bus.Config{DataDir: dir, Listen: "127.0.0.1:0"}, discard())
		wantCode(t, err, fault.CodeConflict)
	}
}
