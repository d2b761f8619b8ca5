package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Types of PEM blocks, and the header of a key that has the lineage.
const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
	headerPast       = "Past"
)

// encode writes a key and certificates as PEM.
func encode(key *ecdsa.PrivateKey, past lineage, certs ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	block := &pem.Block{Type: blockKey, Bytes: der}
	if len(past) > 0 {
		block.Headers = map[string]string{headerPast: strings.Join(past, ",")}
	}
	out := pem.EncodeToMemory(block)
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c})...)
	}
	return out, nil
}

// decoded is what encode wrote, once or several times.
type decoded struct {
	keys  []*ecdsa.PrivateKey
	certs [][]byte
	// past is that of the first key.
	past lineage
}

func decode(data []byte) (*decoded, error) {
	d := &decoded{}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		switch b.Type {
		case blockCertificate:
			d.certs = append(d.certs, b.Bytes)
		case blockKey:
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, fault.Wrap(fault.CodeConflict, err, "the key cannot be read")
			}
			ec, ok := k.(*ecdsa.PrivateKey)
			if !ok {
				return nil, fault.New(fault.CodeConflict, "there is a key that is not on an elliptic curve")
			}
			if len(d.keys) == 0 {
				if d.past, err = parseLineage(b.Headers[headerPast]); err != nil {
					return nil, err
				}
			}
			d.keys = append(d.keys, ec)
		default:
			return nil, fault.New(fault.CodeConflict, "there is a %.40q among certificates", b.Type)
		}
	}
	if len(d.keys) == 0 || len(d.certs) == 0 {
		return nil, fault.New(fault.CodeConflict, "there is no key, or no certificate")
	}
	return d, nil
}

// authority is the one of the n-th key and certificate.
func (d *decoded) authority(n int) (*Authority, error) {
	trust, err := ParseTrust(d.certs[n])
	if err != nil {
		return nil, err
	}
	if !d.keys[n].PublicKey.Equal(trust.certs[0].PublicKey) {
		return nil, fault.New(fault.CodeConflict, "the key is not the authority's")
	}
	a := &Authority{trust: trust, key: d.keys[n]}
	if n == 0 {
		a.past = d.past
	}
	return a, nil
}
