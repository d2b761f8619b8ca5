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
	"encoding/pem"
	"fmt"
	"math/big"
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

// Types of PEM blocks.
const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
)

// Authority certifies. It is safe for concurrent use.
type Authority struct {
	trust *Trust
	key   *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "tatami"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	trust, err := ParseTrust(der)
	if err != nil {
		return nil, err
	}
	return &Authority{trust: trust, key: key}, nil
}

// Encode returns the authority with its private key, as PEM.
func (a *Authority) Encode() ([]byte, error) { return encode(a.key, a.trust.cert.Raw) }

// ParseAuthority reads what Encode returned.
func ParseAuthority(data []byte) (*Authority, error) {
	key, certs, err := decode(data)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fault.New(fault.CodeConflict, "there are %d certificates where the authority's is wanted", len(certs))
	}
	trust, err := ParseTrust(certs[0])
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(trust.cert.PublicKey) {
		return nil, fault.New(fault.CodeConflict, "the key is not the authority's")
	}
	return &Authority{trust: trust, key: key}, nil
}

// Trust is what others need to know of the authority.
func (a *Authority) Trust() *Trust { return a.trust }

// Sign certifies the key of a request (Request.DER) for the subject, whatever else the request says, for the life given. The result is the
// certificate, followed by the authority's own.
func (a *Authority) Sign(request []byte, s Subject, life time.Duration, now time.Time) ([][]byte, error) {
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
	until := now.Add(life)
	if end := a.trust.cert.NotAfter; until.After(end) {
		until = end
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: s.Name}, URIs: []*url.URL{s.url()},
		NotBefore: now.Add(-skew), NotAfter: until, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.trust.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certifying %s: %w", s, err)
	}
	return [][]byte{der, a.trust.cert.Raw}, nil
}

// Identify makes an identity of the authority's own making.
func (a *Authority) Identify(s Subject, life time.Duration, now time.Time) (*Identity, error) {
	r, err := NewRequest()
	if err != nil {
		return nil, err
	}
	chain, err := a.Sign(r.DER, s, life, now)
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

// encode writes a key and certificates as PEM.
func encode(key *ecdsa.PrivateKey, certs ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der})
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c})...)
	}
	return out, nil
}

// decode reads what encode wrote.
func decode(data []byte) (key *ecdsa.PrivateKey, certs [][]byte, err error) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		switch b.Type {
		case blockCertificate:
			certs = append(certs, b.Bytes)
		case blockKey:
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, nil, fault.Wrap(fault.CodeConflict, err, "the key cannot be read")
			}
			ec, ok := k.(*ecdsa.PrivateKey)
			if !ok || key != nil {
				return nil, nil, fault.New(fault.CodeConflict, "there is not one key on an elliptic curve")
			}
			key = ec
		default:
			return nil, nil, fault.New(fault.CodeConflict, "there is a %.40q among certificates", b.Type)
		}
	}
	if key == nil || len(certs) == 0 {
		return nil, nil, fault.New(fault.CodeConflict, "there is no key, or no certificate")
	}
	return key, certs, nil
}
