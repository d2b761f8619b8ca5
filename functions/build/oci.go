package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// maxMetadata bounds a manifest, an index or a configuration.
	maxMetadata = 4 << 20
	// maxLayers is what an overlay mount takes.
	maxLayers = 127
	// maxEntries bounds the files of all layers together.
	maxEntries = 1_000_000
)

// Opener reads a blob of the digest and tells its size. An absent one is a fault of the kind not-found, or an fs.ErrNotExist.
type Opener = func(digest string) (io.ReadCloser, int64, error)

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.CodeInvalidArtifact, format, args...)
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ValidDigest reports whether s is a digest as artifacts have it: sha256 and 64 lower-case hexadecimal digits.
func ValidDigest(s string) bool {
	hexed, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hexed) != 64 {
		return false
	}
	return strings.Trim(hexed, "0123456789abcdef") == ""
}

// readMetadata reads a whole small blob and checks it against its digest, and against its size unless that is negative.
func readMetadata(open Opener, what, digest string, size int64) ([]byte, error) {
	if !ValidDigest(digest) {
		return nil, invalid("the %s's digest %q is not sha256", what, digest)
	}
	r, stored, err := open(digest)
	if err != nil {
		return nil, openError(err, what, digest)
	}
	defer r.Close()
	if stored > maxMetadata {
		return nil, invalid("the %s %s has %d bytes; at most %d are read", what, short(digest), stored, maxMetadata)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	switch {
	case err != nil:
		return nil, openError(err, what, digest)
	case len(data) > maxMetadata:
		return nil, invalid("the %s %s has more than %d bytes", what, short(digest), maxMetadata)
	case size >= 0 && int64(len(data)) != size:
		return nil, invalid("the %s %s has %d bytes instead of %d", what, short(digest), len(data), size)
	case digestOf(data) != digest:
		return nil, invalid("the %s %s does not match its digest: the archive is damaged", what, short(digest))
	}
	return data, nil
}

// openError keeps a fault of the store (not there, store down) apart from a broken image.
func openError(err error, what, digest string) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	f := fault.From(err)
	switch {
	case f == nil && isNotExist(err), f != nil && f.Code.Kind() == fault.NotFound:
		return invalid("the %s %s is missing", what, short(digest))
	case f != nil:
		return err
	}
	return fault.Wrap(fault.CodeInvalidArtifact, err, "read the %s %s", what, short(digest))
}

func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19] + "…"
	}
	return digest
}

// checked is an image that passed.
type checked struct {
	manifest v1.Manifest
	config   v1.ConfigFile
	size     int64
}

// check judges an image by its manifest: configuration, architecture, and every layer to its last byte.
func check(ctx context.Context, raw []byte, o Options, open Opener) (*checked, error) {
	var c checked
	if err := json.Unmarshal(raw, &c.manifest); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the manifest is not readable")
	}
	m := &c.manifest
	if err := checkManifest(m); err != nil {
		return nil, err
	}
	config, err := readMetadata(open, "configuration", m.Config.Digest.String(), m.Config.Size)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config, &c.config); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidArtifact, err, "the image's configuration is not readable")
	}
	if err := checkPlatform(c.config.OS, c.config.Architecture, o.Architecture); err != nil {
		return nil, err
	}
	if got, want := len(c.config.RootFS.DiffIDs), len(m.Layers); got != want {
		return nil, invalid("the image has %d layers, but its configuration lists %d", want, got)
	}
	s := &scan{ctx: ctx, left: o.MaxUnpacked, most: o.MaxUnpacked, entries: maxEntries, climbing: map[string]bool{}}
	for i, layer := range m.Layers {
		o.progress(Progress{Step: "check", Name: "layer " + short(layer.Digest.String()), Done: int64(i), Total: int64(len(m.Layers))})
		diffID, err := s.layer(layer, open)
		if err != nil {
			return nil, err
		}
		if want := c.config.RootFS.DiffIDs[i].String(); diffID != want {
			return nil, invalid("layer %d unpacks to %s, but the configuration says %s", i+1, short(diffID), short(want))
		}
		c.size += layer.Size
	}
	return &c, nil
}

func checkManifest(m *v1.Manifest) error {
	switch {
	case m.MediaType.IsIndex():
		return invalid("this is an index of several images, not an image's manifest")
	case m.SchemaVersion != 2, m.MediaType != "" && !m.MediaType.IsImage():
		return invalid("this is no image manifest (schema %d, media type %q)", m.SchemaVersion, m.MediaType).
			WithHint("build the image with a current tool")
	case !m.Config.MediaType.IsConfig():
		return invalid("this is an OCI artifact (%q), not a container image", m.Config.MediaType)
	case len(m.Layers) == 0:
		return invalid("the image has no layers: there is nothing to run")
	case len(m.Layers) > maxLayers:
		return invalid("the image has %d layers; at most %d can be mounted", len(m.Layers), maxLayers).WithHint("squash it")
	}
	return nil
}

func checkPlatform(os, architecture, want string) error {
	if os != "linux" {
		return invalid("the image is for %s/%s; nodes run linux", orUnknown(os), orUnknown(architecture))
	}
	if architecture != want {
		return invalid("the image is for linux/%s, the nodes are linux/%s", orUnknown(architecture), want).
			WithHint("build it for linux/%s, for example: docker build --platform linux/%s", want, want)
	}
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// ociType returns the OCI media type that stands for t, which may be Docker's.
func ociType(t types.MediaType) types.MediaType {
	switch t {
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	case types.DockerConfigJSON:
		return types.OCIConfigJSON
	case types.DockerManifestSchema2:
		return types.OCIManifestSchema1
	}
	return t
}

// Validate checks an image that was uploaded by digest: every blob is there and is what its digest says, the image is for the
// architecture, no path of a layer escapes, and it unpacks to at most DefaultMaxUnpacked bytes. Only OCI media types are accepted.
// Errors of open that are faults other than not-found come back unchanged.
func Validate(ctx context.Context, digest, architecture string, open Opener) (functions.Artifact, error) {
	return ValidateWithin(ctx, digest, architecture, DefaultMaxUnpacked, open)
}

// ValidateWithin is Validate with another bound of the unpacked size, in bytes.
func ValidateWithin(ctx context.Context, digest, architecture string, maxUnpacked int64, open Opener) (functions.Artifact, error) {
	raw, err := readMetadata(open, "manifest", digest, -1)
	if err != nil {
		return functions.Artifact{}, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return functions.Artifact{}, fault.Wrap(fault.CodeInvalidArtifact, err, "the manifest is not readable")
	}
	if err := checkManifest(&m); err != nil {
		return functions.Artifact{}, err
	}
	found := []types.MediaType{m.Config.MediaType}
	if m.MediaType != "" {
		found = append(found, m.MediaType)
	}
	for _, l := range m.Layers {
		found = append(found, l.MediaType)
	}
	for _, t := range found {
		if t != ociType(t) {
			return functions.Artifact{}, invalid("the media type %s is Docker's; an uploaded image is in OCI's", t)
		}
	}
	c, err := check(ctx, raw, Options{Architecture: architecture, MaxUnpacked: maxUnpacked}, open)
	if err != nil {
		return functions.Artifact{}, err
	}
	return functions.Artifact{Digest: digest, Architecture: c.config.Architecture, Size: c.size}, nil
}

// adopt makes an Image of a manifest, possibly Docker's, and its parts, after having checked all of it.
func adopt(ctx context.Context, raw []byte, kind Kind, o Options, open Opener) (*Image, error) {
	c, err := check(ctx, raw, o, open)
	if err != nil {
		return nil, err
	}
	m := c.manifest
	converted := m.MediaType != "" && m.MediaType != ociType(m.MediaType)
	rewrite := func(d *v1.Descriptor) {
		if t := ociType(d.MediaType); t != d.MediaType {
			d.MediaType, converted = t, true
		}
	}
	rewrite(&m.Config)
	for i := range m.Layers {
		rewrite(&m.Layers[i])
	}
	if converted {
		m.MediaType = types.OCIManifestSchema1
		if raw, err = json.Marshal(m); err != nil {
			return nil, fmt.Errorf("write the manifest: %w", err)
		}
	}
	image := &Image{
		Kind: kind, Name: o.Name, Digest: digestOf(raw), Architecture: c.config.Architecture, Size: c.size, Manifest: raw,
		Command: append(append([]string(nil), c.config.Config.Entrypoint...), c.config.Config.Cmd...),
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		digest := d.Digest.String()
		image.add(Blob{Digest: digest, Size: d.Size, Open: func() (io.ReadCloser, error) {
			r, _, err := open(digest)
			return r, err
		}})
	}
	image.add(bytesBlob(raw))
	return image, nil
}
