//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// A NATS client hands work over and hears its result, from zero; revoked, it is cut off.
func TestCallsOverNATS(t *testing.T) {
	addr, flags := harness.WorkersAt(t)
	s := harness.Start(t, harness.WithFlags(flags...))
	s.Deploy("probe", "probe", "")
	file := filepath.Join(t.TempDir(), "url")
	s.Must("token", "create", "--caller", "tester", "--file", file)
	url, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	nc, err := nats.Connect(strings.TrimSpace(string(url)), nats.Timeout(time.Minute), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	results := make(chan *nats.Msg, 10)
	if _, err := nc.ChanSubscribe("result.*", results); err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("fn.default.probe")
	m.Data = []byte("over NATS")
	m.Header.Set("Tatami-Path", "/echo")
	answer, err := nc.RequestMsg(m, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var accepted struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer.Data, &accepted); err != nil || accepted.ID == "" {
		t.Fatalf("%s %v", answer.Data, err)
	}
	select {
	case r := <-results:
		if r.Subject != "result."+accepted.ID || !strings.Contains(string(r.Data), "succeeded") || !strings.Contains(string(r.Data), "over NATS") {
			t.Errorf("%s: %s", r.Subject, r.Data)
		}
	case <-time.After(time.Minute):
		t.Fatal("no result came")
	}
	if st := result(t, s, accepted.ID); st.State != "succeeded" {
		t.Errorf("%+v", st)
	}
	missing, err := nc.Request("fn.default.nobody", nil, time.Minute)
	if err != nil || missing.Header.Get("Tatami-Error") != "function-not-found" {
		t.Errorf("%+v, %v", missing, err)
	}
	var tokens []struct {
		ID, Caller string
		Namespaces []string
	}
	if list(t, s, &tokens, "token", "ls"); len(tokens) != 1 || tokens[0].Caller != "tester" {
		t.Fatalf("%+v", tokens)
	}
	s.Must("token", "revoke", tokens[0].ID)
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("a revoked caller is still connected")
	}
	if _, err := nats.Connect("nats://"+addr, nats.Timeout(time.Minute), nats.UserInfo(tokens[0].ID, "x")); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a revoked caller: %v", err)
	}
}

// The messages of another server's stream become invocations, from zero, and the stream is told.
func TestNATSTrigger(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the other server is not ready")
	}
	nc, err := nats.Connect(srv.ClientURL(), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MAIL", Subjects: []string{"mail.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if _, err := js.Publish(t.Context(), "mail.in", fmt.Append(nil, n)); err != nil {
			t.Fatal(err)
		}
	}
	s := harness.Start(t)
	s.Deploy("probe", "probe", "")
	s.Must("trigger", "add", "mail", "probe", "--nats", srv.ClientURL(), "--stream", "MAIL", "--start", "earliest", "--path", "/echo")
	eventually(t, time.Minute, "every message is taken in and acknowledged", func() bool {
		st := triggerOf(t, s, "mail").Status
		return st.Accepted == 10 && st.Lag != nil && *st.Lag == 0
	})
}
