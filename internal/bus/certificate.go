package bus

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// certificateFile is the name of the file in a worker's data directory that holds its certificate, with the key, and the authority's.
const certificateFile = "node.pem"

const (
	// certifyTimeout bounds the wait for a certificate.
	certifyTimeout = 5 * time.Second
	// renewRetry is the shortest wait between two tries to replace a certificate.
	renewRetry = time.Second
)

// loadCertificate takes over the certificate of an earlier run, and with it whom the worker believes. A token that names another authority
// goes first: its server was made anew.
func (l *Link) loadCertificate(dir string) error {
	path := filepath.Join(dir, certificateFile)
	_, l.pin = splitToken(l.cfg.Token)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the worker's certificate: %w", err)
	}
	i, err := pki.ParseIdentity(data)
	if err != nil {
		return fault.Wrap(fault.CodeConflict, err, "%s cannot be read", path).
			WithHint("remove the file: with a token the worker gets another certificate")
	}
	if l.pin != "" && !i.Descends(l.pin) {
		l.log.Warn("the token is from a server with another certificate authority; the worker's certificate is given up", "path", path)
		return nil
	}
	l.keeper.Install(i)
	return nil
}

// HasJoined reports whether a worker has joined with a data directory: it is known by what lies there, and needs no token any more.
func HasJoined(dir string) bool {
	for _, name := range []string{certificateFile, keyFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// pinned is the pin of the authority by which the server is known; empty where nothing says so.
func (l *Link) pinned() string {
	if i, err := l.keeper.Identity(); err == nil {
		return i.Trust().Pin()
	}
	return l.pin
}

// certificate is the worker's, where it has one that has not ended.
func (l *Link) certificate(now time.Time) (*pki.Identity, bool) {
	i, err := l.keeper.Identity()
	return i, err == nil && now.Before(i.Until())
}

// dialer makes the connections of a link: who connects has a certificate.
type dialer struct{ l *Link }

// Dial connects to the server. A worker that has no certificate, or has not met the server in this run, introduces itself first.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	if _, ok := d.l.certificate(time.Now()); !ok || !d.l.met.Load() {
		if err := d.l.introduce(address); err != nil {
			d.l.heed(err)
			return nil, err
		}
	}
	c, err := net.DialTimeout(network, address, joinTimeout)
	if err != nil {
		return nil, err
	}
	missVanished(c)
	return c, nil
}

// introduce has the server say whether it lets the worker in, and gets the worker a certificate where it has none.
func (l *Link) introduce(address string) error {
	config := l.keeper.Reach(pki.Only(pki.RoleServer))
	_, certified := l.certificate(time.Now())
	if !certified {
		config = pki.Meet(l.pinned(), func(*pki.Trust) {})
	}
	nc, err := nats.Connect("nats://"+address, l.options(config, nats.NoReconnect())...)
	if err != nil {
		return err
	}
	defer nc.Close()
	if certified {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), certifyTimeout)
	defer cancel()
	return l.certify(ctx, nc, l.pinned())
}

// options are those of every connection of the worker.
func (l *Link) options(config *tls.Config, more ...nats.Option) []nats.Option {
	secret, _ := splitToken(l.cfg.Token)
	if l.cred.secret != "" {
		secret += " " + l.cred.secret
	}
	return append([]nats.Option{
		nats.Name(l.boot), nats.UserInfo(string(l.identity.Node), secret), l.cred.option(), nats.CustomInboxPrefix(inboxOf(l.identity.Node)),
		nats.Timeout(joinTimeout), nats.IgnoreDiscoveredServers(), nats.Secure(config),
	}, more...)
}

// certify gets the worker a certificate for a new key, in the place of the one that it may have. Pin is an authority that has to be trusted then;
// empty: whichever the server says, which has shown who it is.
func (l *Link) certify(ctx context.Context, nc *nats.Conn, pin string) error {
	r, err := pki.NewRequest()
	if err != nil {
		return err
	}
	data, err := json.Marshal(CertificateRequest{Schema: Schema, Request: r.DER})
	if err != nil {
		return err
	}
	m, err := nc.RequestWithContext(ctx, CertifySubject(l.identity.Node), data)
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "the server gives no certificate")
	}
	if err := refusalIn(m); err != nil {
		return err
	}
	a, err := Decode[CertificateAnswer](m.Data)
	if err != nil {
		return fmt.Errorf("reading the worker's certificate: %w", err)
	}
	i, err := r.Identity(a.Chain)
	if err != nil {
		return fmt.Errorf("reading the worker's certificate: %w", err)
	}
	if pin != "" && !i.Trust().Has(pin) || i.Subject() != workerSubject(l.identity.Node) {
		return fault.New(fault.CodeDenied, "the server's certificate is for %s, of another authority or for somebody else", i.Subject())
	}
	if before, err := l.keeper.Identity(); err == nil {
		i = i.After(before)
	}
	if data, err = i.Encode(); err == nil {
		err = writeDurably(l.dir, certificateFile, data)
	}
	if err != nil {
		return fmt.Errorf("writing the worker's certificate: %w", err)
	}
	l.keeper.Install(i)
	l.log.Info("certificate received", "until", i.Until().UTC(), "serial", i.Serial())
	return nil
}

// hear takes note of the question which certificate the worker has; the last one counts.
func (l *Link) hear(m *nats.Msg) {
	select {
	case <-l.wanted:
	default:
	}
	select {
	case l.wanted <- m.Data:
	default:
	}
}

// follow answers the question which certificate the worker has; where it believes others than the servers do, it is certified anew first.
// It returns when to look again.
func (l *Link) follow(ctx context.Context, question []byte) time.Duration {
	q, err := Decode[CertificatesWanted](question)
	if err != nil {
		l.log.Warn("a server's question cannot be read", "err", err)
	}
	i, ierr := l.keeper.Identity()
	return l.renew(ctx, err == nil && ierr == nil && !slices.Equal(i.Trust().Pins(), q.Trusts))
}

// renew replaces the certificate when it is time, or at once, says which one the worker has, and returns when to look again.
func (l *Link) renew(ctx context.Context, atOnce bool) time.Duration {
	i, err := l.keeper.Identity()
	if err != nil {
		return renewRetry // there is no server yet
	}
	if left := time.Until(i.RenewAt()); left > 0 && !atOnce {
		l.stand(i)
		return left
	}
	ask, cancel := context.WithTimeout(ctx, certifyTimeout)
	defer cancel()
	if err := l.certify(ask, l.nc, ""); err != nil {
		if ctx.Err() == nil {
			l.log.Warn("the certificate is not renewed yet; trying again", "until", i.Until().UTC(), "err", err)
		}
		return max(renewRetry, time.Until(i.Until())/16)
	}
	if i, err = l.keeper.Identity(); err == nil {
		l.stand(i)
	}
	return renewRetry
}

// stand says which certificate the worker has. Where there is no server, one will ask.
func (l *Link) stand(i *pki.Identity) {
	data, err := json.Marshal(standingOf(i))
	if err == nil {
		err = l.nc.Publish(StandingSubject(string(l.identity.Node)), data)
	}
	if err != nil {
		l.log.Debug("the server is not told of the certificate", "err", err)
	}
}

// ListenerTLS is how the worker's listener shows itself to gateways, and lets nobody else in; refused is told of the others.
func (l *Link) ListenerTLS(refused func(error)) *tls.Config {
	return l.keeper.Admit(pki.Only(pki.RoleServer), refused)
}
