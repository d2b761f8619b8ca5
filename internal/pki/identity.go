package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Request is a key that is to be certified.
type Request struct {
	// DER is the request in the form of PKCS #10, which shows that whoever asks holds the key.
	DER []byte
	key *ecdsa.PrivateKey
}

// NewRequest makes a key and a request for its certificate.
func NewRequest() (*Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("making a request for a certificate: %w", err)
	}
	return &Request{DER: der, key: key}, nil
}

// Identity puts the request's key together with what Authority.Sign returned.
func (r *Request) Identity(chain [][]byte) (*Identity, error) { return newIdentity(r.key, chain, nil) }

// Identity is a certificate with its private key, and the authority that it is from. It does not change.
type Identity struct {
	subject Subject
	trust   *Trust
	key     *ecdsa.PrivateKey
	tls     *tls.Certificate
	past    lineage
}

// newIdentity takes a chain as Authority.Sign returns it.
func newIdentity(key *ecdsa.PrivateKey, chain [][]byte, past lineage) (*Identity, error) {
	if len(chain) != 2 && len(chain) != 4 {
		return nil, fault.New(fault.CodeConflict, "there are %d certificates where one and its authority's are wanted", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "the certificate cannot be read")
	}
	trust, err := ParseTrust(chain[1])
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fault.New(fault.CodeConflict, "the certificate is for another key")
	}
	if len(chain) == 4 {
		before, err := ParseTrust(chain[3])
		if err != nil {
			return nil, err
		}
		if _, err := parseLink(chain[2], trust.certs[0], before.certs[0]); err != nil {
			return nil, err
		}
		trust = newTrust(trust.certs[0], before.certs[0])
	}
	if err := leaf.CheckSignatureFrom(trust.certs[0]); err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "the certificate is of another authority")
	}
	s, err := subjectOf(leaf)
	if err != nil {
		return nil, err
	}
	return &Identity{s, trust, key, &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, past}, nil
}

// Encode returns the identity with its private key, as PEM.
func (i *Identity) Encode() ([]byte, error) { return encode(i.key, i.past, i.tls.Certificate...) }

// ParseIdentity reads what Encode returned. The certificate may have ended.
func ParseIdentity(data []byte) (*Identity, error) {
	d, err := decode(data)
	if err != nil {
		return nil, err
	}
	if len(d.keys) != 1 {
		return nil, fault.New(fault.CodeConflict, "there are %d keys where one is wanted", len(d.keys))
	}
	return newIdentity(d.keys[0], d.certs, d.past)
}

// Subject is whom the certificate is for.
func (i *Identity) Subject() Subject { return i.subject }

// Trust is the authority that the certificate is from, and while that is new the one before.
func (i *Identity) Trust() *Trust { return i.trust }

// Until is when the certificate ends.
func (i *Identity) Until() time.Time { return i.tls.Leaf.NotAfter }

// RenewAt is when the certificate is to be replaced: a third of its life is left then for trying.
func (i *Identity) RenewAt() time.Time {
	begin := i.tls.Leaf.NotBefore.Add(skew)
	return i.Until().Add(-i.Until().Sub(begin) / 3)
}

// Serial is the certificate's number.
func (i *Identity) Serial() string { return fmt.Sprintf("%x", i.tls.Leaf.SerialNumber) }
