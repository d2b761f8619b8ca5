package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// maxIndexDepth is how deep an index may hold indexes.
	maxIndexDepth = 4
	// maxManifests is how many manifests of a layout are looked at.
	maxManifests = 1000
)

// OpenLayout makes an image of an OCI layout directory: the one in it that is for the architecture.
func OpenLayout(ctx context.Context, dir string, o Options) (*Image, error) {
	return fromLayout(ctx, directory(dir), KindLayout, o.withDefaults(dir))
}

// OpenArchive makes an image of a tar, plain or compressed with gzip or zstd, that holds an OCI layout or what `docker save` writes.
// Where it holds both, as that of current Docker does, the layout is taken.
func OpenArchive(ctx context.Context, file string, o Options) (*Image, error) {
	o = o.withDefaults(file)
	a, cleanup, err := openArchive(ctx, file, o)
	if err != nil {
		return nil, err
	}
	has := func(name string) bool { _, ok := a.members[name]; return ok }
	var image *Image
	switch {
	case has("index.json"):
		image, err = fromLayout(ctx, a, KindArchive, o)
	case has("manifest.json"):
		image, err = fromDockerSave(ctx, a, o)
	default:
		err = invalid("%s is no image: it has neither index.json (OCI layout) nor manifest.json (docker save)", file).
			WithHint("write one: docker save -o image.tar NAME. `docker export` writes a bare file system, which is no image")
	}
	if err != nil {
		_ = cleanup()
		return nil, err
	}
	image.cleanup = append(image.cleanup, cleanup)
	return image, nil
}

func fromLayout(ctx context.Context, in files, kind Kind, o Options) (*Image, error) {
	raw, err := readFile(in, "index.json")
	if err != nil {
		return nil, err
	}
	open := func(digest string) (io.ReadCloser, int64, error) {
		if !ValidDigest(digest) {
			return nil, 0, invalid("the digest %q is not sha256", digest)
		}
		return in.open("blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"))
	}
	p := picker{open: open, arch: o.Architecture}
	if err := p.index(raw, 0); err != nil {
		return nil, err
	}
	chosen, err := p.choose(o.Name)
	if err != nil {
		return nil, err
	}
	manifest, err := readMetadata(open, "manifest", chosen.Digest.String(), chosen.Size)
	if err != nil {
		return nil, err
	}
	return adopt(ctx, manifest, kind, o, open)
}

func readFile(in files, name string) ([]byte, error) {
	r, size, err := in.open(name)
	if isNotExist(err) {
		return nil, invalid("this is no image: %s is missing", name)
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", name)
	}
	defer r.Close()
	if size > maxMetadata {
		return nil, invalid("%s has %d bytes; at most %d are read", name, size, maxMetadata)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", name)
	}
	return data, nil
}

// picker collects the images of a layout and picks the one for an architecture.
type picker struct {
	open Opener
	arch string
	// fit are those for the architecture, others the platforms that the rest is for.
	fit    []v1.Descriptor
	others []string
	seen   int
}

func (p *picker) index(raw []byte, depth int) error {
	if depth > maxIndexDepth {
		return invalid("the index holds indexes more than %d deep", maxIndexDepth)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return fault.Wrap(fault.CodeInvalidArtifact, err, "the image's index is not readable")
	}
	for _, d := range index.Manifests {
		if p.seen++; p.seen > maxManifests {
			return invalid("the layout holds more than %d manifests", maxManifests)
		}
		switch {
		case d.MediaType.IsIndex():
			below, err := readMetadata(p.open, "index", d.Digest.String(), d.Size)
			if err != nil {
				return err
			}
			if err := p.index(below, depth+1); err != nil {
				return err
			}
		case d.Annotations["vnd.docker.reference.type"] != "":
			// An attestation about another image.
		case d.MediaType.IsImage():
			if err := p.consider(d); err != nil {
				return err
			}
		case d.MediaType.IsSchema1():
			return invalid("the image has Docker's schema 1, which is no longer in use").WithHint("build it with a current tool")
		}
	}
	return nil
}

// consider asks the image's configuration where the index does not say the platform.
func (p *picker) consider(d v1.Descriptor) error {
	platform := d.Platform
	if platform == nil || platform.Architecture == "" {
		raw, err := readMetadata(p.open, "manifest", d.Digest.String(), d.Size)
		if err != nil {
			return err
		}
		var m v1.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return fault.Wrap(fault.CodeInvalidArtifact, err, "the manifest %s is not readable", short(d.Digest.String()))
		}
		if !m.Config.MediaType.IsConfig() {
			p.others = append(p.others, string(m.Config.MediaType))
			return nil
		}
		raw, err = readMetadata(p.open, "configuration", m.Config.Digest.String(), m.Config.Size)
		if err != nil {
			return err
		}
		var c v1.ConfigFile
		if err := json.Unmarshal(raw, &c); err != nil {
			return fault.Wrap(fault.CodeInvalidArtifact, err, "the image's configuration is not readable")
		}
		platform = &v1.Platform{OS: c.OS, Architecture: c.Architecture}
	}
	if platform.OS != "linux" || platform.Architecture != p.arch {
		p.others = append(p.others, orUnknown(platform.OS)+"/"+orUnknown(platform.Architecture))
		return nil
	}
	if !slices.ContainsFunc(p.fit, func(o v1.Descriptor) bool { return o.Digest == d.Digest }) {
		p.fit = append(p.fit, d)
	}
	return nil
}

func (p *picker) choose(shown string) (v1.Descriptor, error) {
	switch {
	case len(p.fit) == 1:
		return p.fit[0], nil
	case len(p.fit) > 1:
		var names []string
		for _, d := range p.fit {
			name := d.Annotations["org.opencontainers.image.ref.name"]
			if full := d.Annotations["io.containerd.image.name"]; full != "" {
				name = full
			}
			if name == "" {
				name = short(d.Digest.String())
			}
			names = append(names, name)
		}
		return v1.Descriptor{}, invalid("%s holds %d images for linux/%s: %s", shown, len(p.fit), p.arch, strings.Join(names, ", ")).
			WithHint("write an archive with one image")
	case len(p.others) > 0:
		slices.Sort(p.others)
		return v1.Descriptor{}, invalid("%s holds no image for linux/%s, only for %s", shown, p.arch, strings.Join(slices.Compact(p.others), ", ")).
			WithHint("build it for the nodes: docker build --platform linux/%s", p.arch)
	}
	return v1.Descriptor{}, invalid("%s holds no image", shown)
}

// savedImage is a row of the manifest.json that `docker save` writes.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// fromDockerSave reads the older form of `docker save`: a configuration and one tar for each layer.
func fromDockerSave(ctx context.Context, a *archive, o Options) (*Image, error) {
	raw, err := readFile(a, "manifest.json")
	if err != nil {
		return nil, err
	}
	var saved []savedImage
	if err := json.Unmarshal(raw, &saved); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "manifest.json is not readable")
	}
	switch {
	case len(saved) == 0:
		return nil, invalid("%s holds no image", o.Name)
	case len(saved) > 1:
		var names []string
		for _, s := range saved {
			names = append(names, strings.Join(s.RepoTags, " "))
		}
		return nil, invalid("%s holds %d images: %s", o.Name, len(saved), quote(strings.Join(names, ", "))).WithHint("save one image: docker save -o image.tar NAME")
	case len(saved[0].Layers) > maxLayers:
		return nil, invalid("the image has %d layers; at most %d can be mounted", len(saved[0].Layers), maxLayers).WithHint("squash it")
	}
	config, err := readMember(a, saved[0].Config)
	if err != nil {
		return nil, err
	}
	// The members by digest: the manifest that Docker did not write refers to them.
	places := map[string]string{digestOf(config): saved[0].Config}
	configDescriptor, err := descriptor(types.OCIConfigJSON, digestOf(config), int64(len(config)))
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: configDescriptor}
	for i, name := range saved[0].Layers {
		o.progress(Progress{Step: "read", Name: name, Done: int64(i), Total: int64(len(saved[0].Layers))})
		d, err := describeLayer(ctx, a, name, o)
		if err != nil {
			return nil, err
		}
		places[d.Digest.String()] = cleanMember(name)
		m.Layers = append(m.Layers, d)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	places[digestOf(config)] = cleanMember(saved[0].Config)
	return adopt(ctx, manifest, KindArchive, o, func(digest string) (io.ReadCloser, int64, error) {
		return a.open(places[digest])
	})
}

func cleanMember(name string) string {
	clean, ok := inside(name)
	if !ok {
		return ""
	}
	return clean
}

func readMember(a *archive, name string) ([]byte, error) {
	if cleanMember(name) == "" {
		return nil, escape(name, "")
	}
	return readFile(a, cleanMember(name))
}

// describeLayer reads a layer once for its digest; its compression is told by its first bytes.
func describeLayer(ctx context.Context, a *archive, name string, o Options) (v1.Descriptor, error) {
	clean := cleanMember(name)
	if clean == "" {
		return v1.Descriptor{}, escape(name, "")
	}
	r, size, err := a.open(clean)
	if err != nil {
		if isNotExist(err) {
			return v1.Descriptor{}, invalid("the layer %s is missing in the archive", quote(name))
		}
		return v1.Descriptor{}, fault.Wrap(fault.CodeInvalidArtifact, err, "read the layer %s", quote(name))
	}
	defer r.Close()
	sum, head, err := hashAll(ctx, r, size)
	if err != nil {
		if ctx.Err() != nil {
			return v1.Descriptor{}, ctx.Err()
		}
		return v1.Descriptor{}, fault.Wrap(fault.CodeInvalidArtifact, err, "read the layer %s", quote(name))
	}
	media := types.OCIUncompressedLayer
	switch compressionOf(head) {
	case gzipped:
		media = types.OCILayer
	case zstandard:
		media = types.OCILayerZStd
	}
	return descriptor(media, sum, size)
}

func hashAll(ctx context.Context, r io.Reader, size int64) (digest string, head []byte, err error) {
	m := newMeter(ctx, r, size)
	head = make([]byte, 4)
	n, err := io.ReadFull(m, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", nil, err
	}
	if _, err := io.Copy(io.Discard, m); err != nil {
		return "", nil, err
	}
	return m.digest(), head[:n], nil
}

func descriptor(t types.MediaType, digest string, size int64) (v1.Descriptor, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: t, Size: size, Digest: h}, nil
}
