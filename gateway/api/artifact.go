package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

func checkDigest(d string) error {
	if build.ValidDigest(d) {
		return nil
	}
	return fault.New(fault.CodeInvalidRequest, "%q is no digest", clip(d)).WithField("digest").WithHint(`a digest is "sha256:" and 64 hexadecimal digits`)
}

// uploaded checks the image of a manifest digest, and that it is for one of the architectures.
func (a *API) uploaded(ctx context.Context, digest string, architectures []string) (functions.Artifact, error) {
	m, err := a.manifest(ctx, digest)
	if err != nil {
		return functions.Artifact{}, err
	}
	// What is there now stays until the revision is recorded.
	whole := true
	for _, d := range append(blobsOf(m), digest) {
		have, err := a.hasBlob(ctx, d)
		if err != nil {
			return functions.Artifact{}, err
		}
		whole = whole && have
	}
	if known, ok := a.judged.find(digest, architectures); ok && whole {
		return known, nil
	}
	open := func(d string) (io.ReadCloser, int64, error) {
		return a.deps.Bus.Artifacts().Open(ctx, bus.ArtifactObject(d))
	}
	var out functions.Artifact
	for _, arch := range architectures {
		if out, err = build.Validate(ctx, digest, arch, open); err == nil {
			a.judged.add(out)
			break
		}
	}
	return out, err
}

// manifest reads the manifest of one image.
func (a *API) manifest(ctx context.Context, digest string) (*ggcr.Manifest, error) {
	r, size, err := a.deps.Bus.Artifacts().Open(ctx, bus.ArtifactObject(digest))
	if fault.KindOf(err) == fault.NotFound {
		return nil, fault.New(fault.CodeInvalidArtifact, "the image's manifest %s was not uploaded", digest).WithField("digest").
			WithHint("upload it with PUT /v1/blobs/{digest}; `tatami deploy` does")
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxManifest {
		return nil, fault.New(fault.CodeInvalidArtifact, "the image's manifest is larger than %d MiB", maxManifest>>20).WithField("digest")
	}
	m, err := ggcr.ParseManifest(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the image's manifest is not readable").WithField("digest")
	}
	return m, nil
}

// blobsOf lists the digests that a manifest names.
func blobsOf(m *ggcr.Manifest) []string {
	out := []string{m.Config.Digest.String()}
	for _, l := range m.Layers {
		out = append(out, l.Digest.String())
	}
	return slices.DeleteFunc(out, func(d string) bool { return !build.ValidDigest(d) })
}

// dropStrays removes the revisions that their function does not list: a process that ended half way through a deploy or a deletion left
// them. It returns the others.
func (a *API) dropStrays(ctx context.Context, revisions []bus.Entry[functions.Revision]) ([]bus.Entry[functions.Revision], error) {
	fns, err := a.deps.Bus.Functions().List(ctx, "")
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for _, f := range fns {
		for _, id := range f.Value.Revisions {
			listed[bus.RevisionKey(f.Value.Ref(), id)] = true
		}
	}
	var failed error
	kept := slices.DeleteFunc(revisions, func(e bus.Entry[functions.Revision]) bool {
		if listed[e.Key] || failed != nil {
			return false
		}
		failed = a.deps.Bus.Revisions().Delete(ctx, e.Key)
		return failed == nil
	})
	return kept, failed
}

// sweepBlobs removes the blobs that no revision names and nobody asked for lately.
func (a *API) sweepBlobs(ctx context.Context) error {
	a.records.Lock()
	defer a.records.Unlock()
	revisions, err := a.deps.Bus.Revisions().List(ctx, "")
	if err != nil {
		return err
	}
	if revisions, err = a.dropStrays(ctx, revisions); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, e := range revisions {
		if e.Value.Artifact.Reference != "" || keep[e.Value.Artifact.Digest] {
			continue
		}
		keep[e.Value.Artifact.Digest] = true
		m, err := a.manifest(ctx, e.Value.Artifact.Digest)
		if err != nil {
			// What an unreadable manifest names is not known: removing nothing is right for sure.
			return fmt.Errorf("reading the artifact of %s: %w", e.Key, err)
		}
		for _, d := range blobsOf(m) {
			keep[d] = true
		}
	}
	objects, err := a.deps.Bus.Artifacts().List(ctx)
	if err != nil {
		return err
	}
	var failed error
	now := time.Now()
	a.blobs.forget(now.Add(-a.cfg.BlobGrace))
	for _, o := range objects {
		if keep[o.Name] || now.Sub(o.Modified) < a.cfg.BlobGrace || a.blobs.inUse(o.Name) {
			continue
		}
		if err := a.deps.Bus.Artifacts().Delete(ctx, o.Name); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		a.log.Info("unused artifact removed", "digest", o.Name, "bytes", o.Size)
	}
	return failed
}
