package pki

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Trust is whom somebody believes: an authority, and while it is new the one before. It is safe for concurrent use.
type Trust struct {
	// certs has the authority that certifies first.
	certs []*x509.Certificate
	roots *x509.CertPool
}

func newTrust(certs ...*x509.Certificate) *Trust {
	t := &Trust{certs: certs, roots: x509.NewCertPool()}
	for _, c := range certs {
		t.roots.AddCert(c)
	}
	return t
}

// ParseTrust reads an authority's own certificate.
func ParseTrust(der []byte) (*Trust, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "the authority's certificate cannot be read")
	}
	if !c.IsCA || c.CheckSignatureFrom(c) != nil {
		return nil, fault.New(fault.CodeConflict, "the certificate is no authority's")
	}
	return newTrust(c), nil
}

// Pin is what the authority that certifies is known by to those who have not met it: the SHA-256 of its public key, as 64 hexadecimal digits.
func (t *Trust) Pin() string { return pinOf(t.certs[0]) }

// Pins are those of all that are trusted, that of the one that certifies first.
func (t *Trust) Pins() []string {
	out := make([]string, len(t.certs))
	for i, c := range t.certs {
		out[i] = pinOf(c)
	}
	return out
}

// Has reports whether the authority of the pin is trusted.
func (t *Trust) Has(pin string) bool { return slices.Contains(t.Pins(), pin) }

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Check reports whom a peer's chain, as TLS has it, certifies at that time; a denied fault says why it certifies nobody.
func (t *Trust) Check(chain []*x509.Certificate, now time.Time) (Subject, error) {
	if len(chain) == 0 {
		return Subject{}, fault.New(fault.CodeDenied, "no certificate is shown")
	}
	c := chain[0]
	if now.After(c.NotAfter) {
		return Subject{}, fault.New(fault.CodeDenied, "the certificate ended at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		return Subject{}, fault.New(fault.CodeDenied, "the certificate begins at %s", c.NotBefore.UTC().Format(time.RFC3339)).
			WithHint("set the machines' clocks right")
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: t.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil && !t.linked(chain, now) {
		return Subject{}, fault.Wrap(fault.CodeDenied, err, "the certificate is of another authority")
	}
	return subjectOf(c)
}

// Pinned finds the authority that the pin is of in a peer's chain, as TLS has it.
func Pinned(pin string, chain []*x509.Certificate) (*Trust, error) {
	for _, c := range chain {
		t, err := ParseTrust(c.Raw)
		if err == nil && subtle.ConstantTimeCompare([]byte(t.Pin()), []byte(pin)) == 1 {
			return t, nil
		}
	}
	return nil, fault.New(fault.CodeDenied, "the peer's authority is not the one that is expected")
}
