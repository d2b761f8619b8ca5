// Package source holds what the sources of triggers have in common.
package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Sleep returns after the time, or when ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// TLS is the configuration of a client that trusts the certificates in a file, or the system's where none is named. Field names the file's setting.
func TLS(ca, field string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "reading the certificates").WithField(field)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.CodeUnavailable, "%s holds no certificate", ca).WithField(field)
	}
	return cfg, nil
}
