package build

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// ResolverConfig is how registries are asked. The zero value is usable.
type ResolverConfig struct {
	// DockerConfig is a Docker configuration (a config.json, or the directory that holds one) with credentials; empty: the user's own.
	DockerConfig string
	// Timeout bounds one resolution. Default 30s.
	Timeout time.Duration
	// Transport carries the requests. Default: one with short timeouts, the proxy of the environment and the system's certificates.
	Transport http.RoundTripper
}

// Resolver asks registries what a reference stands for. It may be used from many goroutines.
type Resolver struct {
	cfg      ResolverConfig
	keychain authn.Keychain
}

// NewResolver makes a Resolver; nothing is read or asked yet.
func NewResolver(cfg ResolverConfig) *Resolver {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 20 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConns:          16,
			ForceAttemptHTTP2:     true,
		}
	}
	r := &Resolver{cfg: cfg, keychain: userConfig{authn.DefaultKeychain}}
	if cfg.DockerConfig != "" {
		r.keychain = dockerConfig(cfg.DockerConfig)
	}
	return r
}

// Resolve returns the artifact that the reference names for linux and the architecture, by digest. Plain HTTP is spoken with registries on
// loopback only. Faults: invalid-spec (no reference), unavailable (registry not reached), denied (credentials refused), not-found,
// invalid-artifact (no image for the architecture).
func (r *Resolver) Resolve(ctx context.Context, reference, architecture string) (functions.Artifact, error) {
	ref, err := ParseReference(reference)
	if err != nil {
		return functions.Artifact{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	q := query{ref: ref, arch: architecture, options: []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(r.keychain),
		remote.WithTransport(&loopbackHTTP{next: r.cfg.Transport}),
		remote.WithUserAgent("tatami"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	}}
	a, err := q.run()
	if err != nil {
		return functions.Artifact{}, q.fault(ctx, err)
	}
	return a, nil
}

type query struct {
	ref     Reference
	arch    string
	options []remote.Option
}

func (q query) run() (functions.Artifact, error) {
	d, err := remote.Get(q.ref.ref, q.options...)
	if err != nil {
		return functions.Artifact{}, err
	}
	digest, raw := d.Digest, d.Manifest
	switch {
	case d.MediaType.IsSchema1():
		return functions.Artifact{}, invalid("%s has Docker's schema 1, which is no longer in use", q.ref).WithHint("build and push it with a current tool")
	case d.MediaType.IsIndex():
		if digest, err = q.pick(raw); err != nil {
			return functions.Artifact{}, err
		}
		child, err := remote.Get(q.ref.ref.Context().Digest(digest.String()), q.options...)
		if err != nil {
			return functions.Artifact{}, err
		}
		if !child.MediaType.IsImage() {
			return functions.Artifact{}, invalid("%s: the index leads to %q instead of an image", q.ref, child.MediaType)
		}
		raw = child.Manifest
	case !d.MediaType.IsImage():
		return functions.Artifact{}, invalid("%s is no container image but %q", q.ref, d.MediaType)
	}
	return q.artifact(digest, raw)
}

// pick finds the one manifest of an index that is for the architecture.
func (q query) pick(raw []byte) (v1.Hash, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.Hash{}, fault.Wrap(fault.CodeInvalidArtifact, err, "the index of %s is not readable", q.ref)
	}
	var others []string
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] != "" || !m.MediaType.IsImage() || m.Platform == nil {
			continue
		}
		if m.Platform.OS == "linux" && m.Platform.Architecture == q.arch {
			return m.Digest, nil
		}
		others = append(others, orUnknown(m.Platform.OS)+"/"+orUnknown(m.Platform.Architecture))
	}
	slices.Sort(others)
	e := invalid("%s has no image for linux/%s", q.ref, q.arch).WithHint("build and push it for the nodes: docker build --platform linux/%s", q.arch)
	if others = slices.Compact(others); len(others) > 0 {
		e.Message += ", only for " + strings.Join(others, ", ")
	}
	return v1.Hash{}, e
}

func (q query) artifact(digest v1.Hash, raw []byte) (functions.Artifact, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return functions.Artifact{}, fault.Wrap(fault.CodeInvalidArtifact, err, "the manifest of %s is not readable", q.ref)
	}
	if err := checkManifest(&m); err != nil {
		return functions.Artifact{}, err
	}
	image, err := remote.Image(q.ref.ref.Context().Digest(digest.String()), q.options...)
	if err != nil {
		return functions.Artifact{}, err
	}
	if m.Config.Size > maxMetadata {
		return functions.Artifact{}, invalid("the configuration of %s has %d bytes; at most %d are read", q.ref, m.Config.Size, maxMetadata)
	}
	c, err := image.ConfigFile()
	if err != nil {
		return functions.Artifact{}, err
	}
	if err := checkPlatform(c.OS, c.Architecture, q.arch); err != nil {
		return functions.Artifact{}, err
	}
	out := functions.Artifact{Digest: digest.String(), Reference: q.ref.Repository, Name: q.ref.String(), Architecture: c.Architecture}
	for _, l := range m.Layers {
		if _, err := compressionOfType(l.MediaType); err != nil {
			return functions.Artifact{}, err
		}
		out.Size += l.Size
	}
	return out, nil
}

// fault gives what went wrong its code.
func (q query) fault(ctx context.Context, err error) error {
	if f := fault.From(err); f != nil {
		return err
	}
	registry := q.ref.ref.Context().RegistryStr()
	if registry == name.DefaultRegistry {
		registry = "docker.io"
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fault.Wrap(fault.CodeDenied, err, "%s refuses access to %s", registry, q.ref).
				WithHint("check the name, and log in on the server: docker login %s", registry)
		case http.StatusNotFound:
			return fault.Wrap(fault.CodeNotFound, err, "%s does not have %s", registry, q.ref).WithHint("check the name and the tag")
		case http.StatusTooManyRequests:
			return fault.Wrap(fault.CodeUnavailable, err, "%s refuses for now: too many requests", registry).WithRetryAfter(time.Minute).
				WithHint("wait, or log in on the server: docker login %s", registry)
		}
		return fault.Wrap(fault.CodeUnavailable, err, "%s failed", registry).WithHint("try again; nothing was changed")
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	e := fault.Wrap(fault.CodeUnavailable, err, "registry %s was not reached", registry).
		WithHint("check the name %s and that the server can reach it; a tar of the image needs no registry", registry)
	var unknown x509.UnknownAuthorityError
	var plain *plainHTTPError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Message = fmt.Sprintf("registry %s did not answer in time", registry)
	case errors.As(err, &plain):
		e.Hint = "a registry that is not on loopback needs HTTPS"
	case errors.As(err, &unknown):
		e.Hint = "the registry's certificate is not trusted; add its authority to the server's"
	}
	return e
}

// loopbackHTTP refuses plain HTTP to anywhere but this machine: credentials would be sent in the clear.
type loopbackHTTP struct{ next http.RoundTripper }

type plainHTTPError struct{ host string }

func (e *plainHTTPError) Error() string { return "plain HTTP to " + e.host + " is refused" }

func (t *loopbackHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname()) {
		return nil, &plainHTTPError{r.URL.Host}
	}
	return t.next.RoundTrip(r)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// userConfig is the keychain of the user that the server runs as, with errors that say so.
type userConfig struct{ authn.Keychain }

// Resolve finds the credentials for a repository, or else for its registry.
func (u userConfig) Resolve(target authn.Resource) (authn.Authenticator, error) {
	a, err := u.Keychain.Resolve(target)
	if err != nil {
		return nil, badConfig(err, target)
	}
	return a, nil
}

func badConfig(err error, target authn.Resource) error {
	return fault.Wrap(fault.CodeUnavailable, err, "the server's docker configuration gives no credentials for %s", target.RegistryStr()).
		WithHint("correct it on the server, or name another one with `tatami up --docker-config`")
}

// dockerConfig is a keychain over a named Docker configuration.
type dockerConfig string

// Resolve finds the credentials for a repository, or else for its registry.
func (d dockerConfig) Resolve(target authn.Resource) (authn.Authenticator, error) {
	path := string(d)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, config.ConfigFileName)
	}
	f, err := os.Open(path)
	if isNotExist(err) {
		return authn.Anonymous, nil
	}
	if err != nil {
		return nil, badConfig(err, target)
	}
	defer f.Close()
	c, err := config.LoadFromReader(f)
	if err != nil {
		return nil, badConfig(fmt.Errorf("%s: %w", path, err), target)
	}
	for _, key := range []string{target.String(), target.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		a, err := credentials(c, key)
		if err != nil {
			return nil, badConfig(err, target)
		}
		if a != (authn.AuthConfig{}) {
			return authn.FromConfig(a), nil
		}
	}
	return authn.Anonymous, nil
}

func credentials(c *configfile.ConfigFile, key string) (authn.AuthConfig, error) {
	a, err := c.GetAuthConfig(key)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	return authn.AuthConfig{Username: a.Username, Password: a.Password, Auth: a.Auth, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}, nil
}
