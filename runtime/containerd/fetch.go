//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// blobs is where an artifact's blobs come from: the artifact store or a registry.
type blobs interface {
	// open errors are faults.
	open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// classify makes a fault of an error met while reading.
	classify(err error, desc ocispec.Descriptor) error
}

// source returns where the artifact's blobs are, and its manifest's descriptor there.
func (d *Driver) source(ctx context.Context, a functions.Artifact) (blobs, ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{Digest: digest.Digest(a.Digest), MediaType: ocispec.MediaTypeImageManifest}
	if a.Reference == "" {
		return storeBlobs{d.blobs}, desc, nil
	}
	r := registryBlobs{reference: a.Reference}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithPlainHTTP(docker.MatchLocalhost),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(d.credentials))),
	)})
	_, desc, err := resolver.Resolve(ctx, a.Reference+"@"+a.Digest)
	if err != nil {
		return nil, desc, r.classify(err, ocispec.Descriptor{Digest: digest.Digest(a.Digest)})
	}
	if r.fetcher, err = resolver.Fetcher(ctx, a.Reference+"@"+a.Digest); err != nil {
		return nil, desc, r.classify(err, desc)
	}
	return r, desc, nil
}

// credentials looks a registry up in the docker configuration.
func (d *Driver) credentials(host string) (string, string, error) {
	dir := d.cfg.DockerConfig
	if dir == "" {
		dir = config.Dir()
	}
	file, err := config.Load(dir)
	if err != nil {
		return "", "", fmt.Errorf("read the docker configuration in %s: %w", dir, err)
	}
	if host == "registry-1.docker.io" {
		host = "https://index.docker.io/v1/"
	}
	auth, err := file.GetAuthConfig(host)
	if err != nil {
		return "", "", fmt.Errorf("find the credentials for %s: %w", host, err)
	}
	if auth.IdentityToken != "" {
		return "", auth.IdentityToken, nil
	}
	return auth.Username, auth.Password, nil
}

type storeBlobs struct{ from BlobSource }

func (s storeBlobs) open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, size, err := s.from.Open(ctx, desc.Digest.String())
	if err != nil {
		return nil, s.classify(err, desc)
	}
	if desc.Size != 0 && size != desc.Size {
		rc.Close()
		return nil, fault.New(fault.CodeInvalidArtifact, "the blob %s has %d bytes and the image says %d", desc.Digest, size, desc.Size)
	}
	return rc, nil
}

func (s storeBlobs) classify(err error, desc ocispec.Descriptor) error {
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return fault.Wrap(fault.CodeInvalidArtifact, err, "the artifact store has no blob %s", desc.Digest).WithHint("deploy it again")
	case fault.From(err) != nil, errors.Is(err, context.Canceled):
		return err
	}
	return fault.Wrap(fault.CodeUnavailable, err, "the artifact store's blob %s cannot be read", desc.Digest)
}

type registryBlobs struct {
	reference string
	fetcher   remotes.Fetcher
}

func (r registryBlobs) open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := r.fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, r.classify(err, desc)
	}
	return rc, nil
}

func (r registryBlobs) classify(err error, desc ocispec.Descriptor) error {
	name := r.reference + "@" + desc.Digest.String()
	var status remoteerrors.ErrUnexpectedStatus
	var network *net.OpError
	var transport *url.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, docker.ErrInvalidAuthorization),
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return fault.Wrap(fault.CodeDenied, err, "the registry refuses %s", name).WithHint("run 'docker login' for it as the user that runs tatami")
	case errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err):
		return fault.Wrap(fault.CodeInvalidArtifact, err, "the registry has no %s", name)
	case errors.As(err, &status) && status.StatusCode == http.StatusNotFound:
		return fault.Wrap(fault.CodeInvalidArtifact, err, "the registry has no %s", name)
	case errors.As(err, &network), errors.As(err, &transport):
		return fault.Wrap(fault.CodeUnavailable, err, "the registry of %s does not answer", name).WithHint("check the image's name and this node's network")
	}
	return fault.Wrap(fault.CodeUnavailable, err, "%s cannot be read", name)
}
