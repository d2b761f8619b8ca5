package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// AuthorityFile is the name of the file in the server's data directory that holds the certificate authority with its private key, and while it
// is new the one before.
const AuthorityFile = "ca.pem"

// purposeJoin is that of the secret with which any worker may join a cluster.
const purposeJoin = "worker token"

// authorityRecord is the authority as it is kept: as a file, and where a cluster has changed it as a record of the cluster's, too.
type authorityRecord struct {
	record[*pki.Authority]
	audit *audit
	// keeper has this server's own certificates.
	keeper *pki.Keeper
	// adopted is told, without waiting, that another authority is in force.
	adopted chan struct{}
	// atOnce says that the authority before was replaced without a time in which both are trusted.
	atOnce atomic.Bool

	adopting sync.Mutex
	inForce  atomic.Pointer[inForce]
}

// inForce is the authority that certifies now, and the secrets with which any worker may join.
type inForce struct {
	authority *pki.Authority
	secrets   []string
}

// openAuthority reads the authority of a data directory, or makes it.
func openAuthority(dir string, clustered bool, a *audit) (*authorityRecord, error) {
	r := &authorityRecord{audit: a, adopted: make(chan struct{}, 1)}
	r.record = record[*pki.Authority]{
		dir: dir, file: AuthorityFile, key: authorityKey, what: "the certificate authority", parse: parseAuthority, encode: (*pki.Authority).Encode,
		heard: r.heardOf, log: a.log, clustered: clustered,
	}
	err := r.load()
	if err == nil && r.now == nil {
		err = r.create(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return r, r.enforce(r.now)
}

func parseAuthority(path string, data []byte) (*pki.Authority, error) {
	a, err := pki.ParseAuthority(data)
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "%s cannot be read", path).
			WithHint("restore the file from a backup, or remove it: every worker then has to join anew, with a new token")
	}
	return a, nil
}

func (r *authorityRecord) create(now time.Time) error {
	a, err := pki.NewAuthority(now)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.change(func() { r.now = a }, func() { r.now = nil })
}

// authority is the one that certifies now.
func (r *authorityRecord) authority() *pki.Authority { return r.inForce.Load().authority }

func (r *authorityRecord) pin() string { return r.authority().Trust().Pin() }

func (r *authorityRecord) secrets() []string { return r.inForce.Load().secrets }

// heardOf adopts what another server has made.
func (r *authorityRecord) heardOf(_, now *pki.Authority) {
	if err := r.adopt(now); err != nil {
		r.log.Error("another certificate authority cannot be taken up", "err", err)
	}
}

// replace puts another authority in the place of the one that there is, at every server of the cluster. Next makes it, and says why if it may not be.
func (r *authorityRecord) replace(next func(*pki.Authority) (*pki.Authority, error)) error {
	r.mu.Lock()
	err := r.refresh()
	old := r.now
	var a *pki.Authority
	if err == nil {
		a, err = next(old)
	}
	if err == nil && a != old {
		err = r.change(func() { r.now = a }, func() { r.now = old })
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.adopt(a)
}

// adopt has an authority certify from now on.
func (r *authorityRecord) adopt(a *pki.Authority) error {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	old := r.authority()
	if slices.Equal(old.Trust().Pins(), a.Trust().Pins()) {
		return nil
	}
	data, err := a.Encode()
	if err == nil {
		err = writeDurably(r.dir, r.file, data)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.what, err)
	}
	if err := r.enforce(a); err != nil {
		return err
	}
	r.keeper.Renew()
	switch {
	case a.Before() != nil:
		r.audit.say("authority-rotated", "authority", a.Trust().Pin(), "before", a.Before().Trust().Pin())
	case old.Before() != nil:
		r.audit.say("authority-retired", "authority", a.Trust().Pin(), "retired", old.Before().Trust().Pin())
	default:
		r.atOnce.Store(true)
		r.audit.say("authority-replaced", "authority", a.Trust().Pin(), "retired", old.Trust().Pin())
	}
	select {
	case r.adopted <- struct{}{}:
	default:
	}
	return nil
}

// enforce has the authority certify, and the file with the workers' token name it.
func (r *authorityRecord) enforce(a *pki.Authority) error {
	var secrets []string
	for of := a; of != nil && r.clustered; of = of.Before() {
		s, err := of.Secret(purposeJoin)
		if err != nil {
			return err
		}
		secrets = append(secrets, s)
	}
	fixed := ""
	if r.clustered {
		fixed = secrets[0]
	}
	own, err := joinToken(r.dir, fixed, a.Trust().Pin())
	if err != nil {
		return err
	}
	if !r.clustered {
		secrets = []string{own}
	}
	r.inForce.Store(&inForce{a, secrets})
	return nil
}

// adoptAuthority puts the cluster's authority into the data directory, or makes sure that it is there.
func (c *ClusterConfig) adoptAuthority(dir string) error {
	path := filepath.Join(dir, AuthorityFile)
	data, err := os.ReadFile(path)
	none := errors.Is(err, fs.ErrNotExist)
	switch {
	case none && len(c.Authority) == 0:
		return fault.New(fault.CodeInvalidRequest, "the certificate authority that the servers have in common is missing").WithField("cluster-secret").
			WithHint("make it once, with tatami cluster secret --out FILE, and give the same file to every server: --cluster-secret FILE")
	case err != nil && !none:
		return fmt.Errorf("reading the certificate authority: %w", err)
	case len(c.Authority) == 0:
		return nil
	}
	given, err := pki.ParseAuthority(c.Authority)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "cluster-secret: it cannot be read").WithField("cluster-secret")
	}
	if !none {
		own, err := pki.ParseAuthority(data)
		switch {
		case err != nil:
			return nil //nolint:nilerr // whoever opens it tells of it
		case own.Descends(given.Trust().Pin()):
			return nil // the secret is of the time before the authority was rotated, or the same
		case !given.Descends(own.Trust().Pin()):
			return fault.New(fault.CodeConflict, "cluster-secret: this server's data directory belongs to a cluster with another secret").WithField("cluster-secret").
				WithHint("give the secret of the cluster that %s is of, or start on another directory", dir)
		}
	}
	if err := writeDurably(dir, AuthorityFile, c.Authority); err != nil {
		return fmt.Errorf("writing the certificate authority: %w", err)
	}
	return nil
}
