package bus_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// What a server that stood alone has stored is in the cluster, and its workers are; its directory is of no use afterwards.
func TestAServerThatStoodAloneIsBroughtIn(t *testing.T) {
	t.Parallel()
	alone := open(t, bus.Config{Listen: "127.0.0.1:0"})
	from, ref := alone.DataDir(), functions.Ref{Namespace: "default", Name: "kept"}
	for _, name := range []string{"kept", "gone"} {
		if _, err := alone.Functions().Put(t.Context(), "default."+name, functions.Function{Schema: 1, Namespace: "default", Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := alone.Functions().Delete(t.Context(), "default.gone"); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"inv.h.one", "sched.h.two", "inv.h.three"} {
		m := &nats.Msg{Subject: subject, Data: []byte(subject), Header: nats.Header{"Nats-Msg-Id": {subject}, "X-Own": {"kept"}}}
		if strings.HasPrefix(subject, "sched") {
			m.Header.Set("Nats-Schedule", "@at "+time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			m.Header.Set("Nats-Schedule-Target", "inv.h.two")
		}
		if _, err := alone.Store(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte("body"), 100_000)
	if _, err := alone.Bodies().Put(t.Context(), "large", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	l := join(t, bus.JoinConfig{URL: alone.ListenURL(), Token: sharedToken(t, alone)})
	worker := l.Identity().Node
	caller, password, err := alone.Callers().Create("shop", []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.PrepareImport(from, t.TempDir()); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("from a directory that is in use: %v", err)
	}
	l.Close(t.Context())
	if err := alone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	secret, err := bus.PrepareImport(from, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := newTrioOf(t, dir, secret)
	b := c.buses[1]
	if f, _, err := b.Functions().Get(t.Context(), bus.FunctionKey(ref)); err != nil || f.Name != "kept" {
		t.Errorf("%+v, %v", f, err)
	}
	if f, _, err := b.Functions().Get(t.Context(), "default.gone"); !fault.Is(err, fault.CodeFunctionNotFound) {
		t.Errorf("what was deleted is back: %+v, %v", f, err)
	}
	for _, subject := range []string{"inv.h.one", "sched.h.two", "inv.h.three"} {
		m, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject)
		if err != nil || string(m.Data) != subject || m.Header.Get("X-Own") != "kept" || m.Header.Get("Nats-Msg-Id") != subject {
			t.Errorf("%s: %+v, %v", subject, m, err)
		}
	}
	if m, err := b.Invocations().GetLastMsgForSubject(t.Context(), "inv.h.two"); err == nil {
		t.Errorf("what is scheduled for later is there: %+v", m)
	} else if err.Error() != jetstream.ErrMsgNotFound.Error() {
		t.Error(err)
	}
	r, _, err := b.Bodies().Open(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes of the body, %v", len(got), err)
	}
	r.Close()
	if err := b.Roster().Remove(worker, "test"); err != nil {
		t.Errorf("the worker is unknown: %v", err)
	}
	insistently(t, "calling with the token of the server that stood alone", func() error {
		nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(caller.ID, password))
		if err == nil {
			nc.Close()
		}
		return err
	})
	if _, err := os.Stat(filepath.Join(dir, bus.ImportFile)); err == nil {
		t.Error("it would be brought in again")
	}
	_, err = bus.Open(t.Context(), bus.Config{DataDir: from}, discard())
	wantCode(t, err, fault.CodeConflict)
}

// What a cluster has stored is taken out of it again, with its workers and callers; from then on no server of it leads, nor starts.
func TestAClusterIsTakenBackToOneServer(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	b := c.buses[0]
	if _, err := b.Functions().Put(t.Context(), "default.kept", functions.Function{Schema: 1, Namespace: "default", Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store(t.Context(), &nats.Msg{Subject: "inv.h.one", Data: []byte("one"), Header: nats.Header{"Nats-Msg-Id": {"one"}, "X-Own": {"kept"}}}); err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("body"), 100_000)
	if _, err := b.Bodies().Put(t.Context(), "large", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: sharedToken(t, b)})
	worker := l.Identity().Node
	caller, password, err := b.Callers().Create("shop", []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close(t.Context())

	// Another server leads; it ends when the lead is taken from it, and does not lead again.
	terms, last := make(chan bool, 10), uint64(0)
	leading, stop := context.WithCancel(t.Context())
	var lead sync.WaitGroup
	lead.Go(func() {
		_ = c.buses[1].Lead(leading, "", func(ctx context.Context, epoch uint64) error {
			last = epoch
			terms <- true
			<-ctx.Done()
			terms <- false
			return nil
		})
	})
	defer lead.Wait()
	defer stop()
	if !<-terms {
		t.Fatal("a term ended that had not begun")
	}
	if _, err := b.Export(t.Context(), "here", c.cfgs[2].DataDir); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("to a directory that is in use: %v", err)
	}
	to := filepath.Join(t.TempDir(), "alone")
	done, err := b.Export(t.Context(), "here", to, bus.WorkerTokenFile)
	if err != nil || done.Records == 0 || done.Objects != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if <-terms {
		t.Error("two servers led at once")
	}
	moved := make(chan *bus.Leader, 1)
	look, over := context.WithCancel(t.Context())
	if err := c.buses[2].Leaders(look, func(l *bus.Leader) { moved <- l; over() }); err != nil {
		t.Fatal(err)
	}
	if l := <-moved; l == nil || l.Moved != to+" of here" {
		t.Errorf("who leads: %+v", l)
	}
	select {
	case <-terms:
		t.Error("a server leads again")
	default:
	}
	stop()
	lead.Wait()
	c.close(2)
	_, err = bus.Open(t.Context(), c.cfgs[2], discard())
	if f := fault.From(err); f == nil || f.Code != fault.CodeConflict || !strings.Contains(f.Message, to) {
		t.Errorf("a server of the cluster starts again: %v", err)
	}
	c.close(0, 1)

	alone := open(t, bus.Config{DataDir: to, Listen: "127.0.0.1:0"})
	if e := alone.Identity().Epoch; e <= last {
		t.Errorf("the epoch is %d, and was %d before: workers that stayed would do nothing", e, last)
	}
	if f, _, err := alone.Functions().Get(t.Context(), "default.kept"); err != nil || f.Name != "kept" {
		t.Errorf("%+v, %v", f, err)
	}
	if m, err := alone.Invocations().GetLastMsgForSubject(t.Context(), "inv.h.one"); err != nil || string(m.Data) != "one" || m.Header.Get("X-Own") != "kept" {
		t.Errorf("%+v, %v", m, err)
	}
	r, _, err := alone.Bodies().Open(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes of the body, %v", len(got), err)
	}
	r.Close()
	if alone.Roster().Members()[0] != worker {
		t.Errorf("the workers are %v", alone.Roster().Members())
	}
	nc, err := nats.Connect(alone.ListenURL(), patient, nats.UserInfo(caller.ID, password))
	if err != nil {
		t.Fatalf("calling with the token of the cluster: %v", err)
	}
	nc.Close()
}

// What cannot be brought in is refused before anything is written.
func TestWhatCannotBeBroughtIn(t *testing.T) {
	t.Parallel()
	empty, dir := t.TempDir(), t.TempDir()
	if _, err := bus.PrepareImport(empty, dir); !fault.Is(err, fault.CodeNotFound) {
		t.Errorf("from an empty directory: %v", err)
	}
	alone := open(t, bus.Config{})
	from := alone.DataDir()
	if err := alone.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := open(t, bus.Config{})
	if _, err := bus.PrepareImport(from, other.DataDir()); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("into a directory that is in use: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
