package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// An authority is replaced in two steps. From Succeed on the new one certifies, and both are trusted; the old one has signed the new one's key
// (the link, which everybody shows along), so that whoever has heard of the old one only lets in whom the new one certified. With Retire the
// old one's word counts no longer.

// mostPast bounds a lineage; the oldest go first.
const mostPast = 32

// lineage is the pins of authorities that are trusted no longer, the latest last.
type lineage []string

func parseLineage(s string) (lineage, error) {
	if s == "" {
		return nil, nil
	}
	l := lineage(strings.Split(s, ","))
	for _, pin := range l {
		if b, err := hex.DecodeString(pin); err != nil || len(b) != 32 {
			return nil, fault.New(fault.CodeConflict, "%.80q is no authority's hash", pin)
		}
	}
	return l[max(0, len(l)-mostPast):], nil
}

// and is the lineage with further pins, those that now are trusted left out.
func (l lineage) and(now *Trust, pins ...string) lineage {
	out := slices.Clone(l)
	for _, pin := range pins {
		if !now.Has(pin) && !slices.Contains(out, pin) {
			out = append(out, pin)
		}
	}
	return out[max(0, len(out)-mostPast):]
}

// Succeed makes the authority that takes this one's place; both are trusted until Retire. A conflict fault while the one before is trusted still.
func (a *Authority) Succeed(now time.Time) (*Authority, error) {
	if a.before != nil {
		return nil, fault.New(fault.CodeConflict, "the authority before is trusted still")
	}
	next, err := NewAuthority(now)
	if err != nil {
		return nil, err
	}
	if next.link, err = certifyAuthority(next.key, a.trust.certs[0], a.key, now); err != nil {
		return nil, err
	}
	next.before, next.past = a, a.past
	next.trust = newTrust(next.trust.certs[0], a.trust.certs[0])
	return next, nil
}

// Retire is the authority without the one before.
func (a *Authority) Retire() *Authority {
	if a.before == nil {
		return a
	}
	alone := newTrust(a.trust.certs[0])
	return &Authority{trust: alone, key: a.key, past: a.past.and(alone, a.before.trust.Pin())}
}

// Before is the authority whose place this one has taken, while that is trusted; nil otherwise.
func (a *Authority) Before() *Authority { return a.before }

// Began is when the authority was made.
func (a *Authority) Began() time.Time { return a.trust.certs[0].NotBefore.Add(skew) }

// Descends reports whether the authority is that of the pin, or came in its place.
func (a *Authority) Descends(pin string) bool {
	return a.trust.Has(pin) || slices.Contains(a.past, pin)
}

// After is the identity of somebody who had another one before: it remembers whom that one believed.
func (i *Identity) After(before *Identity) *Identity {
	out := *i
	out.past = before.past.and(i.trust, before.trust.Pins()...)
	return &out
}

// Descends reports whether the identity is from the authority of the pin, or from one that came in its place.
func (i *Identity) Descends(pin string) bool {
	return i.trust.Has(pin) || slices.Contains(i.past, pin)
}

// parseLink reads the word of an authority for the key of the one that takes its place.
func parseLink(der []byte, next, before *x509.Certificate) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "the link between two authorities cannot be read")
	}
	key, ok := next.PublicKey.(*ecdsa.PublicKey)
	if !ok || !key.Equal(c.PublicKey) || c.CheckSignatureFrom(before) != nil {
		return nil, fault.New(fault.CodeConflict, "the link is not between these authorities")
	}
	return c, nil
}

// linked reports whether an authority that is trusted has signed the key of the one that certifies the peer.
func (t *Trust) linked(chain []*x509.Certificate, now time.Time) bool {
	for _, link := range chain[1:] {
		if !link.IsCA || now.After(link.NotAfter) || chain[0].CheckSignatureFrom(link) != nil {
			continue
		}
		for _, root := range t.certs {
			if now.Before(root.NotAfter) && link.CheckSignatureFrom(root) == nil {
				return true
			}
		}
	}
	return false
}
