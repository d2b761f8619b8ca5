//go:build linux

package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	// imagePrefix and the digest are the name of the record that says: this artifact is prepared. It keeps the artifact's manifest, and by
	// labels from there its configuration and unpacked layers, from being collected.
	imagePrefix = "tatami/"
	// viewPrefix and the digest are the key of the artifact's read-only view. It has a root label of its own: it stays while sandboxes use
	// it, also when the artifact is forgotten.
	viewPrefix = "tatami-view-"

	labelRoot = "containerd.io/gc.root"
	labelSize = "tatami.size"
	// labelMapped is on the record of an artifact that runs as root of a user namespace, where that is to be had.
	labelMapped = "tatami.mapped"

	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 256
)

// artifact is a prepared artifact, ready to be the lower layers of a sandbox.
type artifact struct {
	image sandbox.Image
	// lower are overlay's lower directories, topmost first.
	lower []string
	user  identityOf
	// unpoolable says why no sandbox made ahead can take it; nothing is stored while that is not known.
	unpoolable atomic.Value
	listens    listenTime
}

// Prepare makes the artifact ready to run.
func (d *Driver) Prepare(ctx context.Context, a functions.Artifact) (sandbox.Image, error) {
	if _, err := digest.Parse(a.Digest); err != nil {
		return sandbox.Image{}, fault.Wrap(fault.CodeInvalidArtifact, err, "the artifact's digest %q is none", a.Digest)
	}
	if _, err := d.await(ctx); err != nil {
		return sandbox.Image{}, err
	}
	if art := d.known(a.Digest); art != nil {
		return art.image, nil
	}
	// The work belongs to all who wait for it: it ends with the driver, not with the first caller.
	result := d.pulls.DoChan(a.Digest, func() (any, error) {
		if art := d.known(a.Digest); art != nil {
			return art, nil
		}
		return d.prepare(d.scope(d.ctx), a)
	})
	select {
	case <-ctx.Done():
		return sandbox.Image{}, ctx.Err()
	case r := <-result:
		if r.Err != nil {
			return sandbox.Image{}, r.Err
		}
		return r.Val.(*artifact).image, nil
	}
}

// Prepared lists the digests that need no more preparation.
func (d *Driver) Prepared() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.prepared))
}

// Forget gives back what Prepare holds for the digest. The view stays as long as a sandbox uses it.
func (d *Driver) Forget(ctx context.Context, dgst string) error {
	ctx, err := d.await(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.prepared, dgst)
	delete(d.artifacts, dgst)
	d.mu.Unlock()
	d.precreated.drop(dgst)
	if err := d.client.ImageService().Delete(ctx, imagePrefix+dgst); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("forget the artifact %s: %w", dgst, err)
	}
	return d.dropView(ctx, dgst)
}

// Release removes what waits for starts of the artifact that nobody expects any more.
func (d *Driver) Release(dgst string) {
	d.background(func() { d.precreated.drop(dgst) })
}

// dropView removes the artifact's view when it is forgotten and no sandbox uses it.
func (d *Driver) dropView(ctx context.Context, dgst string) error {
	if dgst == "" {
		return nil
	}
	d.mu.Lock()
	used := d.prepared[dgst]
	for _, b := range d.boxes {
		used = used || b.digest == dgst
	}
	d.mu.Unlock()
	if used {
		return nil
	}
	err := d.client.SnapshotService(defaultSnapshotter).Remove(ctx, viewPrefix+dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the view of artifact %s: %w", dgst, err)
	}
	return nil
}

func (d *Driver) known(dgst string) *artifact {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.artifacts[dgst]
}

// artifact returns what was prepared, in this run or an earlier one.
func (d *Driver) artifact(ctx context.Context, dgst string) (*artifact, error) {
	if art := d.known(dgst); art != nil {
		return art, nil
	}
	d.mu.Lock()
	prepared := d.prepared[dgst]
	d.mu.Unlock()
	if !prepared {
		return nil, fault.New(fault.CodeInvalidArtifact, "the artifact %s is not prepared on this node", dgst)
	}
	img, err := d.client.ImageService().Get(ctx, imagePrefix+dgst)
	if err != nil {
		return nil, fmt.Errorf("find the artifact %s: %w", dgst, err)
	}
	return d.load(ctx, img)
}

// loadPrepared learns which artifacts an earlier run prepared, and whether any of them takes a user namespace, and drops views that nobody
// needs.
func (d *Driver) loadPrepared(ctx context.Context) (mapped bool, _ error) {
	list, err := d.client.ImageService().List(ctx)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	for _, img := range list {
		if dgst, ok := strings.CutPrefix(img.Name, imagePrefix); ok {
			d.prepared[dgst] = true
			mapped = mapped || img.Labels[labelMapped] != ""
		}
	}
	d.mu.Unlock()
	var views []string
	err = d.client.SnapshotService(defaultSnapshotter).Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if dgst, ok := strings.CutPrefix(s.Name, viewPrefix); ok {
			views = append(views, dgst)
		}
		return nil
	})
	for _, dgst := range views {
		err = errors.Join(err, d.dropView(ctx, dgst))
	}
	return mapped, err
}

// prepare does the work of Prepare once.
func (d *Driver) prepare(ctx context.Context, a functions.Artifact) (*artifact, error) {
	begun := time.Now()
	if img, err := d.client.ImageService().Get(ctx, imagePrefix+a.Digest); err == nil {
		if art, err := d.load(ctx, img); err == nil {
			return art, nil
		}
		// Its record is there and its content is not: bring it again.
	}
	ctx, done, err := d.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare the artifact %s: %w", a.Digest, err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()

	src, desc, err := d.source(ctx, a)
	if err != nil {
		return nil, err
	}
	manifest, raw, err := readManifest(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	desc.Size, desc.MediaType = int64(len(raw)), manifest.MediaType
	config, rawConfig, err := readConfig(ctx, src, manifest)
	if err != nil {
		return nil, err
	}
	chain := identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs))
	size, err := d.unpack(ctx, src, manifest.Layers, config.RootFS.DiffIDs, chain)
	if err != nil {
		return nil, err
	}

	top := chain[len(chain)-1].String()
	store := d.client.ContentStore()
	if err := keep(ctx, store, manifest.Config, rawConfig, "containerd.io/gc.ref.snapshot."+defaultSnapshotter, top); err != nil {
		return nil, err
	}
	if err := keep(ctx, store, desc, raw, "containerd.io/gc.ref.content.config", manifest.Config.Digest.String()); err != nil {
		return nil, err
	}
	if _, err := d.view(ctx, a.Digest, top); err != nil {
		return nil, err
	}
	img := images.Image{Name: imagePrefix + a.Digest, Target: desc, Labels: map[string]string{labelSize: strconv.FormatInt(size, 10)}}
	if _, err := d.client.ImageService().Create(ctx, img); err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("record the artifact %s: %w", a.Digest, err)
	}
	art, err := d.load(ctx, img)
	if err != nil {
		_ = d.client.ImageService().Delete(ctx, img.Name)
		_ = d.dropView(ctx, a.Digest)
		return nil, err
	}
	if art.user.mapped {
		img.Labels[labelMapped] = "true"
		if _, err := d.client.ImageService().Update(ctx, img, "labels."+labelMapped); err != nil {
			return nil, fmt.Errorf("record the artifact %s: %w", a.Digest, err)
		}
	}
	d.log.Info("artifact prepared", "artifact", a.Digest, "bytes", size, "dur_ms", time.Since(begun).Milliseconds())
	return art, nil
}

// readManifest reads the image's manifest and checks its form.
func readManifest(ctx context.Context, src blobs, desc ocispec.Descriptor) (ocispec.Manifest, []byte, error) {
	var m ocispec.Manifest
	raw, err := readBlob(ctx, src, desc, maxManifest)
	if err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the artifact %s has no manifest", desc.Digest)
	}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	if !images.IsManifestType(m.MediaType) || m.Config.Digest == "" {
		return m, nil, fault.New(fault.CodeInvalidArtifact, "the artifact %s is no image for one platform (its media type is %s)", desc.Digest, m.MediaType)
	}
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return m, nil, fault.New(fault.CodeInvalidArtifact, "the artifact %s has %d layers; 1 to %d can be run", desc.Digest, len(m.Layers), maxLayers)
	}
	return m, raw, nil
}

// readConfig reads the image's configuration and checks that this node can run it.
func readConfig(ctx context.Context, src blobs, m ocispec.Manifest) (ocispec.Image, []byte, error) {
	var c ocispec.Image
	raw, err := readBlob(ctx, src, m.Config, maxConfig)
	if err != nil {
		return c, nil, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the image's configuration %s cannot be read", m.Config.Digest)
	}
	if c.OS != "" && c.OS != "linux" || c.Architecture != goruntime.GOARCH {
		return c, nil, fault.New(fault.CodeInvalidArtifact, "the image is for %s/%s and this node is linux/%s", c.OS, c.Architecture, goruntime.GOARCH).
			WithHint("build it for linux/%s", goruntime.GOARCH)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return c, nil, fault.New(fault.CodeInvalidArtifact, "the image has %d layers and its configuration names %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	return c, raw, nil
}

// keep stores a small blob with a label that keeps another thing.
func keep(ctx context.Context, store content.Store, desc ocispec.Descriptor, raw []byte, label, value string) error {
	labels := map[string]string{label: value}
	err := content.WriteBlob(ctx, store, "tatami-"+desc.Digest.String(), strings.NewReader(string(raw)), desc, content.WithLabels(labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("store the blob %s: %w", desc.Digest, err)
	}
	// It may have been there without the label.
	if _, err := store.Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, "labels."+label); err != nil {
		return fmt.Errorf("label the blob %s: %w", desc.Digest, err)
	}
	return nil
}

// view returns the mounts of the artifact's view, which it makes where it is missing.
func (d *Driver) view(ctx context.Context, dgst, top string) ([]mount.Mount, error) {
	sn := d.client.SnapshotService(defaultSnapshotter)
	key := viewPrefix + dgst
	mounts, err := sn.View(ctx, key, top, snapshots.WithLabels(map[string]string{labelRoot: "true"}))
	if errdefs.IsAlreadyExists(err) {
		mounts, err = sn.Mounts(ctx, key)
	}
	if err != nil {
		return nil, fmt.Errorf("view the layers of artifact %s: %w", dgst, err)
	}
	return mounts, nil
}

// load brings a prepared artifact into memory.
func (d *Driver) load(ctx context.Context, img images.Image) (*artifact, error) {
	dgst := img.Target.Digest.String()
	store := d.client.ContentStore()
	var manifest ocispec.Manifest
	var config ocispec.Image
	for _, part := range []struct {
		desc func() ocispec.Descriptor
		into any
	}{
		{func() ocispec.Descriptor { return img.Target }, &manifest},
		{func() ocispec.Descriptor { return manifest.Config }, &config},
	} {
		raw, err := content.ReadBlob(ctx, store, part.desc())
		if err != nil {
			return nil, fmt.Errorf("read the artifact %s: %w", dgst, err)
		}
		if err := json.Unmarshal(raw, part.into); err != nil {
			return nil, fmt.Errorf("read the artifact %s: %w", dgst, err)
		}
	}
	mounts, err := d.view(ctx, dgst, identity.ChainID(config.RootFS.DiffIDs).String())
	if err != nil {
		return nil, err
	}
	lower, err := lowerDirs(mounts)
	if err != nil {
		return nil, err
	}
	if err := checkPlaces(lower); err != nil {
		return nil, err
	}
	user, err := d.resolveUser(config.Config.User, mounts, lower)
	if err != nil {
		return nil, err
	}
	size, _ := strconv.ParseInt(img.Labels[labelSize], 10, 64)
	art := &artifact{
		image: sandbox.Image{
			Digest: dgst, Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
			WorkingDir: config.Config.WorkingDir, User: config.Config.User, Size: size,
		},
		lower: lower, user: user,
	}
	if user.mapped {
		// From now on somebody may ask for its sandboxes.
		d.background(d.mapped.open)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.artifacts[dgst], d.prepared[dgst] = art, true
	return art, nil
}

// lowerDirs reads overlay's lower directories out of a view's mounts: a bind mount of one layer, or an overlay of several.
func lowerDirs(mounts []mount.Mount) ([]string, error) {
	if len(mounts) == 1 {
		switch m := mounts[0]; m.Type {
		case "bind":
			return []string{m.Source}, nil
		case "overlay":
			for _, o := range m.Options {
				if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
					return strings.Split(dirs, ":"), nil
				}
			}
		}
	}
	return nil, fmt.Errorf("the snapshotter's view has mounts that are no overlay: %v", mounts)
}

// readBlob reads a whole blob and checks it against its digest.
func readBlob(ctx context.Context, src blobs, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	rc, err := src.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, src.classify(err, desc)
	}
	if int64(len(raw)) > limit {
		return nil, fault.New(fault.CodeInvalidArtifact, "the blob %s is larger than %d bytes", desc.Digest, limit)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the image names a blob by %q", desc.Digest)
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return nil, fault.New(fault.CodeInvalidArtifact, "the blob %s has the digest %s: its content is not what was named", desc.Digest, got)
	}
	return raw, nil
}
