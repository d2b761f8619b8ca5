//go:build linux

package containerd

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// maxUnpacked bounds one layer's unpacked size: a compressed layer of a few megabytes could fill the disk.
const maxUnpacked = 20 << 30

// unpack makes a committed snapshot of each layer, named by the chain's ids; those of other artifacts are shared. The compressed layers
// are checked while they pass and are not kept. It returns the unpacked size of the layers that were missing.
func (d *Driver) unpack(ctx context.Context, src blobs, layers []ocispec.Descriptor, diffs, chain []digest.Digest) (int64, error) {
	sn := d.client.SnapshotService(defaultSnapshotter)
	var size int64
	parent, written := "", ""
	for i, layer := range layers {
		name := chain[i].String()
		// Held before it is looked for: one that nobody needs any more may be about to be collected.
		if err := d.hold(ctx, name); err != nil {
			return 0, err
		}
		if _, err := sn.Stat(ctx, name); err == nil {
			parent = name
			continue
		}
		n, dir, err := d.unpackLayer(ctx, sn, src, layer, diffs[i], parent, name)
		if err != nil {
			return 0, err
		}
		size += n
		parent, written = name, dir
	}
	if written != "" {
		if err := syncFilesystem(written); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// hold adds a snapshot, there or not yet, to the lease of ctx.
func (d *Driver) hold(ctx context.Context, name string) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return errors.New("no lease to hold a layer by")
	}
	r := leases.Resource{ID: name, Type: "snapshots/" + defaultSnapshotter}
	if err := d.client.LeasesService().AddResource(ctx, leases.Lease{ID: id}, r); err != nil {
		return fmt.Errorf("hold the layer %s: %w", name, err)
	}
	return nil
}

func (d *Driver) unpackLayer(ctx context.Context, sn snapshots.Snapshotter, src blobs, layer ocispec.Descriptor, diff digest.Digest, parent, name string) (_ int64, _ string, err error) {
	if err := errors.Join(layer.Digest.Validate(), diff.Validate()); err != nil {
		return 0, "", fault.Wrap(fault.CodeInvalidArtifact, err, "the image names a layer by %q", layer.Digest)
	}
	key := "tatami-unpack-" + rand.Text()
	mounts, err := sn.Prepare(ctx, key, parent)
	if err != nil {
		return 0, "", fmt.Errorf("prepare a layer: %w", err)
	}
	defer func() {
		if err != nil {
			_ = sn.Remove(context.WithoutCancel(ctx), key)
		}
	}()
	dir, options, err := applyTarget(mounts)
	if err != nil {
		return 0, "", err
	}

	rc, err := src.open(ctx, layer)
	if err != nil {
		return 0, "", err
	}
	defer rc.Close()
	packed, plain := layer.Digest.Algorithm().Digester(), diff.Algorithm().Digester()
	counted := &countingReader{r: io.TeeReader(rc, packed.Hash())}
	stream, err := compression.DecompressStream(counted)
	if err != nil {
		return 0, "", badLayer(src, layer, counted, err)
	}
	defer stream.Close()
	unpacked := &countingReader{r: io.TeeReader(io.LimitReader(stream, maxUnpacked), plain.Hash())}
	if _, err := archive.Apply(ctx, dir, unpacked, append(options, archive.WithFilter(contained))...); err != nil {
		return 0, "", badLayer(src, layer, counted, err)
	}
	// A tar stream may be followed by padding that belongs to both digests.
	if _, err := io.Copy(io.Discard, unpacked); err != nil {
		return 0, "", badLayer(src, layer, counted, err)
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return 0, "", badLayer(src, layer, counted, err)
	}
	if unpacked.n >= maxUnpacked {
		return 0, "", fault.New(fault.CodeInvalidArtifact, "the layer %s is larger than %d GiB when unpacked", layer.Digest, maxUnpacked>>30)
	}
	if got := packed.Digest(); got != layer.Digest {
		return 0, "", fault.New(fault.CodeInvalidArtifact, "the layer %s has the digest %s: its content is not what was named", layer.Digest, got)
	}
	if got := plain.Digest(); got != diff {
		return 0, "", fault.New(fault.CodeInvalidArtifact, "the layer %s unpacks to %s and the image says %s", layer.Digest, got, diff)
	}
	if err := sn.Commit(ctx, name, key); err != nil {
		if !errdefs.IsAlreadyExists(err) {
			return 0, "", fmt.Errorf("commit a layer: %w", err)
		}
		// Another artifact with the same layer was faster.
		_ = sn.Remove(ctx, key)
		return unpacked.n, "", nil
	}
	return unpacked.n, dir, nil
}

// badLayer tells an error of the source from one of the layer's content.
func badLayer(src blobs, layer ocispec.Descriptor, from *countingReader, err error) error {
	switch {
	case fault.From(err) != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case from.err != nil:
		return src.classify(from.err, layer)
	case errors.Is(err, unix.ENOSPC):
		return fault.Wrap(fault.CodeStorageFull, err, "the disk is full while unpacking the layer %s", layer.Digest)
	}
	return fault.Wrap(fault.CodeInvalidArtifact, err, "the layer %s cannot be unpacked", layer.Digest)
}

// contained refuses entries that would lie outside the root. Unpacking would keep them inside; an archive that tries is no honest image.
func contained(h *tar.Header) (bool, error) {
	names := []string{h.Name}
	if h.Typeflag == tar.TypeLink {
		names = append(names, h.Linkname)
	}
	for _, n := range names {
		if c := path.Clean(strings.TrimLeft(n, "/")); c == ".." || strings.HasPrefix(c, "../") {
			return false, fault.New(fault.CodeInvalidArtifact, "a layer holds the path %q, which leads out of the image", n)
		}
	}
	return true, nil
}

// applyTarget is the directory that a layer is unpacked into, and how.
func applyTarget(mounts []mount.Mount) (string, []archive.ApplyOpt, error) {
	if len(mounts) == 1 {
		m := mounts[0]
		switch m.Type {
		case "bind":
			return m.Source, nil, nil
		case "overlay":
			var upper string
			opts := []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
			for _, o := range m.Options {
				if v, ok := strings.CutPrefix(o, "upperdir="); ok {
					upper = v
				} else if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
					opts = append(opts, archive.WithParents(strings.Split(v, ":")))
				}
			}
			if upper != "" {
				return upper, opts, nil
			}
		}
	}
	return "", nil, fmt.Errorf("the snapshotter's mounts are no overlay: %v", mounts)
}

// syncFilesystem brings the unpacked files to the disk before the record says that they are there.
func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the unpacked layers: %w", err)
	}
	return nil
}

// countingReader counts, and remembers an error of what it reads from.
type countingReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
