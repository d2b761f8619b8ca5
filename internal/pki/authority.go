package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// authorityLife is how long an authority is good.
	authorityLife = 20 * 365 * 24 * time.Hour
	// skew is how far the clocks of two machines may be apart.
	skew = 5 * time.Minute
)

// Authority certifies. It does not change, and is safe for concurrent use.
type Authority struct {
	trust *Trust
	key   *ecdsa.PrivateKey
	// before is the one whose place it has taken, while that is trusted still, and link its word for this one.
	before *Authority
	link   *x509.Certificate
	past   lineage
}

// NewAuthority makes an authority.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	cert, err := certifyAuthority(key, nil, key, now)
	if err != nil {
		return nil, err
	}
	return &Authority{trust: newTrust(cert), key: key}, nil
}

// certifyAuthority certifies an authority's key, by another one or, where that is nil, by itself.
func certifyAuthority(key *ecdsa.PrivateKey, by *x509.Certificate, with *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "tatami"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if by == nil {
		by = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by, key.Public(), with)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Encode returns the authority with its private key, as PEM; and with it the one before, while that is trusted.
func (a *Authority) Encode() ([]byte, error) {
	out, err := encode(a.key, a.past, a.trust.certs[0].Raw)
	if err != nil || a.before == nil {
		return out, err
	}
	before, err := encode(a.before.key, nil, a.before.trust.certs[0].Raw, a.link.Raw)
	return append(out, before...), err
}

// ParseAuthority reads what Encode returned.
func ParseAuthority(data []byte) (*Authority, error) {
	d, err := decode(data)
	if err != nil {
		return nil, err
	}
	switch {
	case len(d.keys) == 1 && len(d.certs) == 1:
		return d.authority(0)
	case len(d.keys) == 2 && len(d.certs) == 3:
	default:
		return nil, fault.New(fault.CodeConflict, "there are %d keys and %d certificates where the authority's are wanted", len(d.keys), len(d.certs))
	}
	a, err := d.authority(0)
	if err != nil {
		return nil, err
	}
	if a.before, err = d.authority(1); err != nil {
		return nil, err
	}
	if a.link, err = parseLink(d.certs[2], a.trust.certs[0], a.before.trust.certs[0]); err != nil {
		return nil, err
	}
	a.trust = newTrust(a.trust.certs[0], a.before.trust.certs[0])
	return a, nil
}

// Trust is what others need to know of the authority.
func (a *Authority) Trust() *Trust { return a.trust }

// Sign certifies the key of a request (Request.DER) for the subject, whatever else the request says, for the life given. The result is the
// certificate, followed by the authority's own; and, while the one before is trusted, by that one's word for the authority and its certificate.
func (a *Authority) Sign(request []byte, s Subject, life time.Duration, now time.Time) ([][]byte, error) {
	return a.sign(request, s, nil, life, now)
}

// sign is Sign with the names and addresses at which the subject is reached, for clients that know it by those.
func (a *Authority) sign(request []byte, s Subject, hosts []string, life time.Duration, now time.Time) ([][]byte, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "request: it is none for a certificate").WithField("request")
	}
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fault.New(fault.CodeInvalidRequest, "request: its key is none on the curve P-256").WithField("request")
	}
	until, own := now.Add(life), a.trust.certs[0]
	if end := own.NotAfter; until.After(end) {
		until = end
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: s.Name}, URIs: []*url.URL{s.url()},
		NotBefore: now.Add(-skew), NotAfter: until, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, own, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certifying %s: %w", s, err)
	}
	chain := [][]byte{der, own.Raw}
	if a.before != nil {
		chain = append(chain, a.link.Raw, a.before.trust.certs[0].Raw)
	}
	return chain, nil
}

// Identify makes an identity of the authority's own making. Hosts are names and addresses at which the subject is reached by those who know it by
// nothing else.
func (a *Authority) Identify(s Subject, life time.Duration, now time.Time, hosts ...string) (*Identity, error) {
	r, err := NewRequest()
	if err != nil {
		return nil, err
	}
	chain, err := a.sign(r.DER, s, hosts, life, now)
	if err != nil {
		return nil, err
	}
	return r.Identity(chain)
}

// Secret returns a secret that all who have the authority's key have in common, another one for each purpose: 64 hexadecimal digits.
func (a *Authority) Secret(purpose string) (string, error) {
	key, err := a.key.Bytes()
	if err != nil {
		return "", fmt.Errorf("reading the authority's key: %w", err)
	}
	secret, err := hkdf.Key(sha256.New, key, nil, "tatami "+purpose, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("deriving a secret: %w", err)
	}
	return hex.EncodeToString(secret), nil
}

func serial() *big.Int {
	var b [16]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}
