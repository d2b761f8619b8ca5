package bus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// server is a bus that workers may join, with its desk.
func server(t *testing.T, cfg bus.Config) (b *bus.Bus, token string, stop func()) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Listen == "" {
		// An address that no other socket gets: its port is free when the server starts again.
		cfg.Listen = fmt.Sprintf("127.%d.%d.%d:0", 1+mrand.IntN(254), mrand.IntN(255), 1+mrand.IntN(254))
	}
	b, err := bus.Open(t.Context(), cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	desk := bus.NewDesk(b, discard())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- desk.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the desk's end: %v", err)
		}
		_ = b.Close(context.Background())
	})
	t.Cleanup(stop)
	select {
	case <-desk.Ready():
	case err := <-ended:
		t.Fatalf("the desk ended: %v", err)
	}
	if token, err = bus.ReadToken(filepath.Join(cfg.DataDir, bus.WorkerTokenFile)); err != nil {
		t.Fatal(err)
	}
	return b, token, stop
}

func join(t *testing.T, cfg bus.JoinConfig) *bus.Link {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	l, err := bus.Join(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

// A worker that has joined is known by its key: it comes back without a token.
func TestAWorkerComesBackWithoutAToken(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{Listen: "127.0.0.1:0"})
	dir := t.TempDir()
	if bus.HasJoined(dir) {
		t.Error("nobody has joined yet")
	}
	l := join(t, bus.JoinConfig{DataDir: dir, URL: b.ListenURL(), Token: sharedToken(t, b)})
	running, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(running) }()
	insistently(t, "the worker gets a certificate", func() error {
		if !bus.HasJoined(dir) {
			return errors.New("there is none yet")
		}
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	l.Close(t.Context())
	if again := join(t, bus.JoinConfig{DataDir: dir, URL: b.ListenURL()}); !again.Conn().IsConnected() {
		t.Error("it is not connected")
	}
}

// patient has a client wait for a server on a loaded machine: two seconds, its default, may be too short for a greeting.
func patient(o *nats.Options) error {
	o.Timeout = time.Minute
	return nil
}

// heard collects subjects.
type heard struct {
	mu       sync.Mutex
	subjects []string
	more     chan struct{}
}

func (h *heard) take(m *nats.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subjects = append(h.subjects, m.Subject)
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// until waits for a subject and returns everything heard up to it.
func (h *heard) until(t *testing.T, subject string) []string {
	t.Helper()
	over := time.After(time.Minute)
	for {
		h.mu.Lock()
		got := slices.Clone(h.subjects)
		h.mu.Unlock()
		if slices.Contains(got, subject) {
			return got
		}
		select {
		case <-h.more:
		case <-over:
			t.Fatalf("%s was not heard; heard %q", subject, got)
		}
	}
}

// What a worker says reaches others on its own subjects only, and it hears nothing that is not for it.
func TestAWorkerSaysAndHearsOnlyWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	inv := functions.NewInvocationID(ref)
	waiting, _ := bus.InvocationSubject(inv)
	other := functions.NewNodeID()
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	own := l.Identity().Node

	all := &heard{more: make(chan struct{}, 1)}
	if _, err := b.Conn().Subscribe(">", all.take); err != nil {
		t.Fatal(err)
	}
	if err := b.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		bus.CommandSubject(own), bus.CommandSubject(other), bus.ReportSubject(other), bus.EndpointsSubject(other), bus.SupplySubject(other),
		bus.SubjectDemand, bus.SubjectReportsWanted, bus.SubjectEndpointsWanted, bus.SubjectOverview, bus.SubjectExplain, waiting,
		"$KV.functions." + bus.FunctionKey(ref), "$KV.results." + bus.ResultKey(inv), "$O.artifacts.M.x", "$JS.API.INFO", "$JS.API.STREAM.NAMES",
		"$JS.API.STREAM.MSG.GET.KV_results", "$JS.API.DIRECT.GET.KV_functions", "$JS.API.CONSUMER.CREATE.KV_revisions",
		"$JS.API.STREAM.PURGE.INV", "$SYS.REQ.SERVER.PING", "_INBOX.x",
	} {
		if err := l.Conn().PublishRequest(subject, bus.ReportSubject(own), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	// What the desk is asked it does not answer to somebody else.
	if err := l.Conn().PublishRequest(bus.SupplySubject(own), bus.CommandSubject(other), []byte(`{"digests":[]}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Named(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := bus.Publish(l, bus.EndpointsSubject(own), bus.EndpointTable{}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range all.until(t, bus.EndpointsSubject(own)) {
		switch {
		case subject == bus.SupplySubject(own), subject == bus.EndpointsSubject(own), strings.HasPrefix(subject, "_INBOX_"+string(own)+"."):
		case strings.HasPrefix(subject, "$JS.") || strings.HasPrefix(subject, "$KV.") || strings.HasPrefix(subject, "_INBOX."):
			// The desk's own reading. No request of the worker's is among it: those would be answered on its report subject.
		default:
			t.Errorf("said on %s", subject)
		}
	}

	// One channel: what comes before the last one is in it before that.
	mine := make(chan *nats.Msg, 100)
	for _, subject := range []string{
		">", "tatami.>", bus.CommandSubject(own), bus.CommandSubject(other), bus.SubjectReports, bus.SubjectEndpoints, bus.EndpointsSubject(own),
		bus.SubjectDemand, "$KV.>", "$KV.results.>", "$KV.functions.>", "$O.>", "inv.>", "_INBOX.>", "_INBOX_" + string(other) + ".>", "$SYS.>",
	} {
		if _, err := l.Conn().ChanSubscribe(subject, mine); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Functions().Create(t.Context(), bus.FunctionKey(ref), functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Results().Create(t.Context(), bus.ResultKey(inv), functions.Result{Schema: 1, ID: inv}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		bus.CommandSubject(other), bus.ReportSubject(other), bus.EndpointsSubject(other), bus.EndpointsSubject(own), bus.SubjectDemand, waiting,
		"_INBOX_" + string(other) + ".a", bus.CommandSubject(own),
	} {
		if err := b.Conn().Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	for over := time.After(time.Minute); ; {
		select {
		case m := <-mine:
			if m.Subject == bus.CommandSubject(own) {
				return
			}
			t.Errorf("heard %s", m.Subject)
		case <-over:
			t.Fatal("it does not hear its own commands")
		}
	}
}

func TestWhoMayJoin(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	_, pin, _ := strings.Cut(token, ".")
	_, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: strings.Repeat("x", 48) + "." + pin}, discard())
	wantCode(t, err, fault.CodeDenied)
	if f := fault.From(err); !strings.Contains(f.Hint, bus.WorkerTokenFile) {
		t.Errorf("the error helps nobody: %+v", f)
	}
	// The server's own node, a name that is none, and the users of the server's process.
	for _, user := range []string{string(b.Identity().Node), "nod_>", "", "tatami", "system"} {
		nc, err := nats.Connect(b.ListenURL(), patient, nats.UserInfo(user, token), nats.Secure(&tls.Config{InsecureSkipVerify: true}))
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("user %q: %v", user, err)
		}
		if nc != nil {
			nc.Close()
		}
	}
	if err := os.Chmod(filepath.Join(b.DataDir(), bus.WorkerTokenFile), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = bus.ReadToken(filepath.Join(b.DataDir(), bus.WorkerTokenFile))
	wantCode(t, err, fault.CodeInvalidRequest)
}

// A node belongs to the worker that joined as it first, one process at a time, whatever token others have.
func TestANodeIsOneWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	home, other := t.TempDir(), t.TempDir()
	first := bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token}
	l := join(t, first)
	copied := func(names ...string) bus.JoinConfig {
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(home, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(other, name), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return bus.JoinConfig{DataDir: other, URL: first.URL, Token: token}
	}
	// The id is known to many, the key is not.
	_, err := bus.Join(copied(bus.IdentityFile), discard())
	wantCode(t, err, fault.CodeDenied)
	// A copy of all that the worker has is refused as long as the worker is there.
	_, err = bus.Join(copied("node.key"), discard())
	wantCode(t, err, fault.CodeDenied)
	l.Close(t.Context())
	twin := join(t, bus.JoinConfig{DataDir: other, URL: first.URL, Token: token})
	_, err = bus.Join(first, discard())
	wantCode(t, err, fault.CodeDenied)
	twin.Close(t.Context())
	stop()

	// The next server knows who is who.
	_, _, stop = server(t, bus.Config{DataDir: dir, Listen: strings.TrimPrefix(first.URL, "nats://")})
	join(t, first)
	stranger := t.TempDir()
	data, err := os.ReadFile(filepath.Join(home, bus.IdentityFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(stranger, bus.IdentityFile), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = bus.Join(bus.JoinConfig{DataDir: stranger, URL: first.URL, Token: token}, discard())
	wantCode(t, err, fault.CodeDenied)
	stop()
	for _, text := range []string{"", "{}", `{"schema":3,"workers":{}}`, `{"schema":1,"workers":[]}`, `{"schema":2,"workers":{"nod_a":null}}`, `{"schema":2,"workers":{},"tokens":{"tok_a":null}}`} {
		if err := os.WriteFile(filepath.Join(dir, bus.RosterFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := bus.Open(t.Context(), bus.Config{DataDir: dir, Listen: "127.0.0.1:0"}, discard())
		wantCode(t, err, fault.CodeConflict)
	}
}

func TestNobodyJoinsUnlessAskedFor(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if url := b.ListenURL(); url != "" {
		t.Errorf("workers may join at %s", url)
	}
	for _, addr := range []string{"0.0.0.0:0", "[::]:4222", ":4222", "127.0.0.1", "127.0.0.1:x"} {
		_, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir(), Listen: addr}, discard())
		wantCode(t, err, fault.CodeInvalidRequest)
		if f := fault.From(err); f.Field != "nats-listen" {
			t.Errorf("%s: %+v", addr, f)
		}
	}
	other, _, _ := server(t, bus.Config{})
	_, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir(), Listen: strings.TrimPrefix(other.ListenURL(), "nats://")}, discard())
	wantCode(t, err, fault.CodeConflict)
}

func TestBlobsReachAWorkerPartByPart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	blobs := map[string][]byte{"sha256:empty": {}, "sha256:small": []byte("small"), "sha256:large": make([]byte, 3<<20+17)}
	_, _ = rand.Read(blobs["sha256:large"])
	for name, data := range blobs {
		if _, err := b.Artifacts().Put(t.Context(), bus.ArtifactObject(name), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	for name, data := range blobs {
		r, size, err := l.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || size != int64(len(data)) || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, size %d, error %v", name, len(got), len(data), size, err)
		}
	}
	_, _, err := l.Open(t.Context(), "sha256:missing")
	wantCode(t, err, fault.CodeNotFound)

	// The reading goes on after a restart of the server, where it was.
	r, _, err := l.Open(t.Context(), "sha256:large")
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	stop()
	server(t, bus.Config{DataDir: dir, Listen: addr})
	tail, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(head, tail...), blobs["sha256:large"]) {
		t.Errorf("after a restart of the server: %d bytes, error %v", len(tail), err)
	}
}

func TestOnlyNeededArtifactsAreNamed(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	for id, state := range map[string]functions.RevisionState{"rev_live": functions.RevisionReady, "rev_bad": functions.RevisionFailed} {
		r := functions.Revision{
			Schema: 1, ID: functions.RevisionID(id), Namespace: "default", Function: "hello", State: state, Artifact: functions.Artifact{Digest: "sha256:" + id},
		}
		if _, err := b.Revisions().Put(t.Context(), bus.RevisionKey(r.Ref(), r.ID), r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Named(t.Context(), []string{"sha256:rev_bad", "sha256:rev_live", "sha256:none"})
	if err != nil || !slices.Equal(got, []string{"sha256:rev_live"}) {
		t.Errorf("named %q, %v", got, err)
	}
}

// A worker that starts before its server, or outlives it, is there when the server is.
func TestALinkFindsItsServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	stop()
	home := t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: "nats://" + addr, Token: token})
	if l.Conn().IsConnected() {
		t.Fatal("connected to nobody")
	}
	_, err := bus.Join(bus.JoinConfig{DataDir: home, URL: "nats://" + addr, Token: token}, discard())
	wantCode(t, err, fault.CodeConflict)
	for range 2 {
		_, _, stop := server(t, bus.Config{DataDir: dir, Listen: addr})
		if _, err := l.Named(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		stop()
	}
	id := l.Identity()
	l.Close(t.Context())
	if again := join(t, bus.JoinConfig{DataDir: home, URL: "nats://" + addr, Token: token}); again.Identity() != id {
		t.Errorf("was %+v, is %+v", id, again.Identity())
	}
}
