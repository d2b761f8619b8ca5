package pki

import (
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Role is what somebody is to the others.
type Role string

// The roles.
const (
	// RoleServer is that of a server: workers obey it, and its gateway reaches their instances.
	RoleServer Role = "server"
	// RoleWorker is that of the worker of a node.
	RoleWorker Role = "worker"
)

// Subject is whom a certificate is for.
type Subject struct {
	Role Role
	// Name is a server's name, or a node's id.
	Name string
}

// uriScheme is that of the URIs in certificates.
const uriScheme = "tatami"

// String returns the subject's URI.
func (s Subject) String() string { return s.url().String() }

func (s Subject) url() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: string(s.Role), Path: "/" + s.Name}
}

// subjectOf reads whom a certificate is for.
func subjectOf(c *x509.Certificate) (Subject, error) {
	if len(c.URIs) == 1 && c.URIs[0].Scheme == uriScheme {
		u := c.URIs[0]
		s := Subject{Role: Role(u.Host), Name: strings.TrimPrefix(u.Path, "/")}
		if (s.Role == RoleServer || s.Role == RoleWorker) && s.Name != "" && s.String() == u.String() {
			return s, nil
		}
	}
	return Subject{}, fault.New(fault.CodeDenied, "the certificate is neither a server's nor a worker's")
}
