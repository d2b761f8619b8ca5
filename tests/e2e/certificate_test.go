//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/pki"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

func certificatesOf(t *testing.T, s *harness.Server) v1.Certificates {
	t.Helper()
	var out v1.Certificates
	list(t, s, &out, "cert", "ls")
	return out
}

// serials are the numbers of the certificates, by whose they are.
func serials(certs v1.Certificates) map[string]string {
	out := map[string]string{}
	for _, c := range certs.Certificates {
		out[c.Server+string(c.Node)] = c.Serial
	}
	return out
}

// audited reports whether a line of the server's audit log has all of that.
func audited(t *testing.T, s *harness.Server, event, who, says string) bool {
	t.Helper()
	return auditedIn(t, s.DataDir, event, who, says)
}

func auditedIn(t *testing.T, dir, event, who, says string) bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, `"event":"`+event+`"`) && strings.Contains(line, who) && strings.Contains(line, says) {
			return true
		}
	}
	return false
}

// stream is a call that goes on until it is cut.
type stream struct {
	t    *testing.T
	body io.ReadCloser
}

func (f *fleet) stream(fn string) *stream {
	f.t.Helper()
	resp, err := f.Open("/fn/" + fn + "/stream?n=100000&ms=50")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		f.t.Fatalf("%s: %s %v", fn, resp.Status, resp.Header)
	}
	return &stream{f.t, resp.Body}
}

// more waits for what it says next.
func (s *stream) more() {
	s.t.Helper()
	if _, err := s.body.Read(make([]byte, 64<<10)); err != nil {
		s.t.Fatalf("the call that was under way has ended: %v", err)
	}
}

// ends waits for its end.
func (s *stream) ends() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s.body); err == nil {
		s.t.Error("the call has come to its end")
	}
}

// Certificates are replaced before they end, and so is the authority that they are from, while a server and a worker run: calls go on, one that is
// under way all the time among them. A worker whose certificate is revoked is cut off at once.
func TestCertificatesChangeWhileCallsGoOn(t *testing.T) {
	f := newFleetOf(t, []string{"--certificate-life", "15s"}, []string{"--grant-memory", "512Mi"})
	w := f.workers[0]
	f.Deploy("steady", "probe", "cpu: 50m\nmemory: 64Mi\ntimeout: 5m\nscale: {min: 1, keepAlive: 10m}\n")
	eventually(t, 30*time.Second, "it is ready", func() bool { return total(f.on("steady")) == 1 })
	token := filepath.Join(t.TempDir(), "token")
	f.Must("token", "create", "--node", "late", "--file", token)
	tr := f.load("steady", 2)
	long := f.stream("steady")
	long.more()

	first := serials(certificatesOf(t, f.Server))
	if len(first) != 2 {
		t.Fatalf("there are certificates %v", first)
	}
	eventually(t, 30*time.Second, "both have other certificates", func() bool {
		now := serials(certificatesOf(t, f.Server))
		for who, serial := range first {
			if now[who] == serial || now[who] == "" {
				return false
			}
		}
		return true
	})
	tr.after(t, 20)
	long.more()

	before := certificatesOf(t, f.Server).Authorities[0].Pin
	f.Must("cert", "rotate")
	eventually(t, 30*time.Second, "the authority before is retired", func() bool {
		c := certificatesOf(t, f.Server)
		return len(c.Authorities) == 1 && c.Authorities[0].Pin != before
	})
	tr.after(t, 20)
	long.more()
	for _, x := range tr.end() {
		t.Errorf("failed: %s", x.what)
	}
	if r := f.CLI("worker", "--join", "nats://"+f.addr, "--token-file", token, "--data-dir", t.TempDir(), "--run-dir", filepath.Dir(w.RunDir)+"/x"); r.Exit != 5 {
		t.Errorf("a worker with a token of before ended with %d: %s", r.Exit, r.Stderr)
	}

	// Both find each other again, the worker with the token that it was started with.
	w.Kill()
	f.Kill()
	f.Launch()
	w.Launch()
	eventually(t, 30*time.Second, "the worker is back", func() bool { return total(f.on("steady")) == 1 })
	f.callAll("steady", 1)

	node := f.nodes()[w.Name].ID
	eventually(t, 10*time.Second, "the worker's certificate is known", func() bool { return serials(certificatesOf(t, f.Server))[string(node)] != "" })
	long = f.stream("steady")
	long.more()
	f.Must("cert", "revoke", serials(certificatesOf(t, f.Server))[string(node)])
	long.ends()
	if code := w.Wait(); code != 5 {
		t.Errorf("the worker that was cut off ended with %d", code)
	}
	for _, event := range []string{"certificate-issued", "authority-rotated", "authority-retired", "node-removed", "refused"} {
		if !audited(t, f.Server, event, "", "") {
			t.Errorf("the audit log does not say %s", event)
		}
	}
}

// intruder connects with a worker's key, showing a certificate.
type intruder struct {
	t    *testing.T
	f    *fleet
	node functions.NodeID
	key  nats.Option
}

func (i *intruder) connect(token string, config *tls.Config) (*nats.Conn, error) {
	i.t.Helper()
	return nats.Connect("nats://"+i.f.addr, i.key, nats.Name("intruder"), nats.Timeout(time.Minute), nats.UserInfo(string(i.node), token), nats.Secure(config),
		nats.CustomInboxPrefix("_INBOX_"+string(i.node)), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// refused says that who came so got nothing, and that the audit log has why.
func (i *intruder) refused(what, token string, config *tls.Config, says string) {
	i.t.Helper()
	nc, err := i.connect(token, config)
	if err == nil {
		nc.Close()
		i.t.Errorf("%s: it is let in", what)
	} else if !errors.Is(err, nats.ErrAuthorization) {
		i.t.Errorf("%s: %v", what, err)
	}
	if !audited(i.t, i.f.Server, "refused", string(i.node), says) {
		i.t.Errorf("%s: the audit log does not say so", what)
	}
}

// shows is how one connects who shows an identity.
func shows(i *pki.Identity) *tls.Config {
	k := pki.NewKeeper()
	k.Install(i)
	return k.Reach(pki.Only(pki.RoleServer))
}

// A wrong token, a certificate that has ended, a key that was revoked, and another worker's subjects: each gets nothing, and the audit log says so.
func TestWhoIsNotLetIn(t *testing.T) {
	// An address that no other socket gets.
	listen := fmt.Sprintf("127.%d.%d.9:7000", 1+rand.IntN(254), rand.IntN(255))
	f := newFleetOf(t, nil, []string{"--grant-memory", "512Mi"}, []string{"--grant-memory", "512Mi", "--listen", listen})
	one, other := f.workers[0], f.workers[1]
	read := func(w *harness.Worker, name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(w.DataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	as := func(w *harness.Worker) (*intruder, *pki.Identity) {
		t.Helper()
		id, err := pki.ParseIdentity(read(w, "node.pem"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := nats.NkeyOptionFromSeed(filepath.Join(w.DataDir, "node.key"))
		if err != nil {
			t.Fatal(err)
		}
		return &intruder{t, f, f.nodes()[w.Name].ID, key}, id
	}
	ca, err := os.ReadFile(filepath.Join(f.DataDir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.ParseAuthority(ca)
	if err != nil {
		t.Fatal(err)
	}

	// Nobody has joined as this node yet: only a token lets it in.
	stranger, _ := as(one)
	stranger.node = functions.NewNodeID()
	id, err := authority.Identify(pki.Subject{Role: pki.RoleWorker, Name: string(stranger.node)}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger.refused("a wrong token", strings.Repeat("0", 48), shows(id), "the token is not known")

	// The worker itself is away meanwhile.
	thief, own := as(one)
	one.Terminate()
	ended, err := authority.Identify(own.Subject(), time.Second, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	thief.refused("a certificate that has ended", "", shows(ended), "the certificate ended at")

	// With the right one it is let in, once the worker's own connection is seen to be gone, and neither speaks nor hears as the other worker.
	var nc *nats.Conn
	eventually(t, 10*time.Second, "it is let in as the worker that is away", func() bool {
		nc, err = thief.connect("", shows(own))
		return err == nil
	})
	defer nc.Close()
	victim := f.nodes()[other.Name].ID
	sub, err := nc.SubscribeSync(bus.CommandSubject(victim))
	if err != nil {
		t.Fatal(err)
	}
	report, err := json.Marshal(map[string]any{"schema": bus.Schema, "node": victim, "draining": true})
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{bus.ReportSubject(victim), bus.EndpointsSubject(victim), bus.SupplySubject(victim), bus.CertifySubject(victim)} {
		if err := nc.Publish(subject, report); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	// A command that is really sent: to the one worker that is left.
	f.Deploy("here", "probe", "cpu: 50m\nmemory: 64Mi\nscale: {min: 1}\n")
	eventually(t, 30*time.Second, "the other worker got its command", func() bool { return f.on("here")[other.Name] == 1 })
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := sub.Pending(); err == nil && n != 0 {
		t.Errorf("it heard %d of the other worker's commands", n)
	}
	if n := f.nodes()[other.Name]; n.State != "ready" {
		t.Errorf("the other worker is %s by its word", n.State)
	}
	for _, says := range []string{"Subscription Violation", bus.ReportSubject(victim), bus.EndpointsSubject(victim), bus.SupplySubject(victim), bus.CertifySubject(victim)} {
		if !audited(t, f.Server, "refused", string(thief.node), says) {
			t.Errorf("another worker's subjects: the audit log does not say %s", says)
		}
	}

	f.Must("node", "rm", string(thief.node), "--force")
	eventually(t, 10*time.Second, "the connection of the one that was removed ends", nc.IsClosed)
	thief.refused("a key that was revoked", "", shows(own), "was removed")
	f.Kill()
	f.Launch()
	thief.refused("a key that was revoked, after a restart", "", shows(own), "was removed")

	// Nor does a worker's own listener let anybody in but servers.
	late, err := authority.Identify(pki.Subject{Role: pki.RoleServer, Name: "late"}, time.Second, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for says, config := range map[string]*tls.Config{
		"is of tatami://worker/": shows(own), "the certificate ended at": shows(late), "no certificate": {InsecureSkipVerify: true},
	} {
		// Its answer to what was shown comes with the first thing that is read.
		if config.VerifyConnection != nil {
			config.VerifyConnection = nil
		}
		conn, err := tls.Dial("tcp", listen, config)
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a worker's listener, where %s: %v", says, err)
		}
		eventually(t, 10*time.Second, "the worker's audit log says that "+says, func() bool { return auditedIn(t, other.DataDir, "refused", "", says) })
	}
}
