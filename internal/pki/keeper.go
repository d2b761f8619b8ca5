package pki

import (
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// sessions is how many sessions with peers are kept for a shorter handshake; whom a peer's certificate is for is checked then too.
const sessions = 8

// Keeper holds the identity that a process shows now. The configurations that it makes follow it when it is replaced; connections that
// exist are left alone. It is safe for concurrent use.
type Keeper struct {
	// renew is nil where identities come by Install only.
	renew func(now time.Time) (*Identity, error)

	mu  sync.Mutex
	now *Identity
}

// NewKeeper makes a keeper that shows what Install is given.
func NewKeeper() *Keeper { return &Keeper{} }

// NewOwnKeeper makes a keeper for whoever has the authority: it makes its identities itself, as they are needed. Hosts are as Authority.Identify has them.
func NewOwnKeeper(a func() *Authority, s Subject, life time.Duration, hosts ...string) *Keeper {
	return &Keeper{renew: func(now time.Time) (*Identity, error) { return a().Identify(s, life, now, hosts...) }}
}

// Renew has an own keeper make another identity: the authority is another one.
func (k *Keeper) Renew() { k.Install(nil) }

// Install puts an identity in the place of the one before.
func (k *Keeper) Install(i *Identity) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = i
}

// Identity is what is shown; unavailable where there is none yet. It may have ended.
func (k *Keeper) Identity() (*Identity, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); k.renew != nil && (k.now == nil || now.After(k.now.RenewAt())) {
		i, err := k.renew(now)
		if err != nil {
			return nil, err
		}
		k.now = i
	}
	if k.now == nil {
		return nil, fault.New(fault.CodeUnavailable, "there is no certificate yet")
	}
	return k.now, nil
}

func (k *Keeper) certificate() (*tls.Certificate, error) {
	i, err := k.Identity()
	if err != nil {
		return nil, err
	}
	return i.tls, nil
}

// base is what all configurations have in common: the identity is shown when it is asked for.
func (k *Keeper) base() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.certificate() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return k.certificate()
		},
	}
}

// Ask is for a listener whose owner checks itself what its peers show, if they show anything.
func (k *Keeper) Ask() *tls.Config {
	c := k.base()
	c.ClientAuth = tls.RequestClientCert
	return c
}

// Admit is for a listener that lets in whom allow lets in, of those that the own authority certifies. Refused is told of the others.
func (k *Keeper) Admit(allow func(Subject) error, refused func(error)) *tls.Config {
	c := k.base()
	// Who shows none is refused by the same check, so that it is told of.
	c.ClientAuth = tls.RequestClientCert
	c.VerifyConnection = k.judge(allow, refused)
	return c
}

// judge is the check of a peer that tells of whom it refuses.
func (k *Keeper) judge(allow func(Subject) error, refused func(error)) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		err := k.check(s, allow)
		if err != nil {
			refused(err)
		}
		return err
	}
}

// Reach is for whoever connects to a peer that allow says is the right one, of those that the own authority certifies.
func (k *Keeper) Reach(allow func(Subject) error) *tls.Config {
	c := k.base()
	// Peers are known by what they are, not by their addresses; VerifyConnection checks the chain.
	c.InsecureSkipVerify = true
	c.ClientSessionCache = &sessionCache{k: k}
	c.VerifyConnection = func(s tls.ConnectionState) error { return k.check(s, allow) }
	return c
}

// Mutual is for peers that connect to each other, whoever begins. Refused is told of those that allow does not let in, or that another authority
// certifies.
func (k *Keeper) Mutual(allow func(Subject) error, refused func(error)) *tls.Config {
	c := k.Reach(allow)
	c.ClientSessionCache = nil
	c.VerifyConnection = k.judge(allow, refused)
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

func (k *Keeper) check(s tls.ConnectionState, allow func(Subject) error) error {
	i, err := k.Identity()
	if err != nil {
		return err
	}
	peer, err := i.Trust().Check(s.PeerCertificates, time.Now())
	if err != nil {
		return err
	}
	return allow(peer)
}

// Meet is for the first contact with a server, whose authority is known by its pin only. It shows nothing. Learn is told of the authority.
func Meet(pin string, learn func(*Trust)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // see VerifyConnection
		VerifyConnection: func(s tls.ConnectionState) error {
			t, err := Pinned(pin, s.PeerCertificates)
			if err != nil {
				return err
			}
			peer, err := t.Check(s.PeerCertificates, time.Now())
			if err == nil {
				err = Only(RoleServer)(peer)
			}
			if err == nil {
				learn(t)
			}
			return err
		},
	}
}

// Only allows whoever has the role.
func Only(r Role) func(Subject) error {
	return func(s Subject) error {
		if s.Role != r {
			return fault.New(fault.CodeDenied, "the certificate is of %s, and a %s's is wanted", s, r)
		}
		return nil
	}
}

// Just allows the subject alone.
func Just(want Subject) func(Subject) error {
	return func(s Subject) error {
		if s != want {
			return fault.New(fault.CodeDenied, "the certificate is of %s, and that of %s is wanted", s, want)
		}
		return nil
	}
}

// sessionCache keeps sessions with peers as long as the same authorities are trusted: one with a certificate of another authority is of no use.
type sessionCache struct {
	k *Keeper

	mu    sync.Mutex
	of    []string
	cache tls.ClientSessionCache
}

// current is the cache of what is trusted now.
func (s *sessionCache) current() tls.ClientSessionCache {
	var pins []string
	if i, err := s.k.Identity(); err == nil {
		pins = i.Trust().Pins()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil || !slices.Equal(s.of, pins) {
		s.of, s.cache = pins, tls.NewLRUClientSessionCache(sessions)
	}
	return s.cache
}

// Get returns the session of a key.
func (s *sessionCache) Get(key string) (*tls.ClientSessionState, bool) { return s.current().Get(key) }

// Put keeps a session.
func (s *sessionCache) Put(key string, cs *tls.ClientSessionState) { s.current().Put(key, cs) }
