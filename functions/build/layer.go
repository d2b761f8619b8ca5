package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxWindow is the largest window a zstd layer may ask memory for.
const maxWindow = 128 << 20

// scan reads an image's layers in their order and holds the bounds over all of them.
type scan struct {
	ctx context.Context
	// left is what may still be unpacked, of most in all; entries how many entries may still come.
	left, most int64
	entries    int
	// claimed is what the entries say they hold: a sparse file is small in the archive and large on disk.
	claimed int64
	// climbing holds the symbolic links seen so far that lead above the root: nothing may be written through one.
	climbing map[string]bool
}

type compression uint8

const (
	plainTar compression = iota
	gzipped
	zstandard
)

func compressionOf(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	}
	return plainTar
}

func compressionOfType(t types.MediaType) (compression, error) {
	switch t {
	case types.OCILayer, types.DockerLayer:
		return gzipped, nil
	case types.OCILayerZStd:
		return zstandard, nil
	case types.OCIUncompressedLayer, types.DockerUncompressedLayer:
		return plainTar, nil
	}
	switch {
	case !t.IsDistributable(), strings.Contains(string(t), ".nondistributable."), strings.Contains(string(t), ".foreign."):
		return 0, invalid("a layer is foreign (%s): its content is not in the image", t).WithHint("build the image on another base")
	case strings.HasSuffix(string(t), "+encrypted"):
		return 0, invalid("a layer is encrypted (%s)", t).WithHint("decrypt the image first")
	}
	return 0, invalid("a layer has the unknown media type %q", t)
}

// decompress reads through r. The result is closed by the function returned.
func decompress(r io.Reader, c compression) (io.Reader, func(), error) {
	switch c {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fault.Wrap(fault.CodeInvalidArtifact, err, "not gzip")
		}
		return z, func() { _ = z.Close() }, nil
	case zstandard:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fault.Wrap(fault.CodeInvalidArtifact, err, "not zstd")
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// layer reads one layer to its end and returns the digest of its unpacked tar.
func (s *scan) layer(d v1.Descriptor, open Opener) (string, error) {
	digest := d.Digest.String()
	if !ValidDigest(digest) || d.Size < 0 {
		return "", invalid("a layer's digest %q or size %d is not valid", digest, d.Size)
	}
	c, err := compressionOfType(d.MediaType)
	if err != nil {
		return "", err
	}
	if d.Size > s.most {
		return "", invalid("layer %s has %d bytes, more than the %d that an image may unpack to", short(digest), d.Size, s.most)
	}
	blob, stored, err := open(digest)
	if err != nil {
		return "", openError(err, "layer", digest)
	}
	defer blob.Close()
	if stored >= 0 && stored != d.Size {
		return "", invalid("layer %s has %d bytes instead of %d: the archive is damaged", short(digest), stored, d.Size)
	}
	packed := &meter{r: blob, sum: sha256.New(), ctx: s.ctx, left: d.Size, over: func() error {
		return invalid("layer %s has more than the %d bytes that its manifest says", short(digest), d.Size)
	}}
	// The decompressors read byte by byte where they can; the meter is told of whole buffers.
	in := bufio.NewReaderSize(packed, 128<<10)
	out, done, err := decompress(in, c)
	if err != nil {
		return "", s.broken(err, digest)
	}
	defer done()
	unpacked := &meter{r: out, sum: sha256.New(), ctx: s.ctx, left: s.left, over: s.tooLarge}
	if err := s.entriesOf(unpacked); err != nil {
		return "", s.broken(err, digest)
	}
	// Padding after the end of the tar belongs to its digest, and whatever follows the compressed stream to the blob's.
	if _, err := io.Copy(io.Discard, unpacked); err != nil {
		return "", s.broken(err, digest)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", s.broken(err, digest)
	}
	if packed.digest() != digest {
		return "", invalid("layer %s does not match its digest: the archive is damaged", short(digest))
	}
	s.left = unpacked.left
	return unpacked.digest(), nil
}

// broken keeps faults and cancellation as they are and calls everything else a damaged layer.
func (s *scan) broken(err error, digest string) error {
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	if f := fault.From(err); f != nil && f.Err == nil {
		return err
	}
	return fault.Wrap(fault.CodeInvalidArtifact, err, "layer %s is not a readable tar", short(digest))
}

func (s *scan) tooLarge() error {
	return invalid("the image unpacks to more than %d MiB", s.most/functions.MiB).WithHint("a function's image should be small: leave out what it does not run")
}

// entriesOf walks the tar and judges every entry.
func (s *scan) entriesOf(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if s.entries--; s.entries < 0 {
			return invalid("the image has more than %d files", maxEntries)
		}
		if h.Size < 0 || h.Size > s.most-s.claimed {
			return s.tooLarge()
		}
		s.claimed += h.Size
		if err := s.entry(h); err != nil {
			return err
		}
	}
}

// entry refuses what would be written outside of the root.
func (s *scan) entry(h *tar.Header) error {
	name, ok := inside(h.Name)
	if !ok {
		return escape(h.Name, "")
	}
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if s.climbing[dir] {
			return escape(h.Name, " through the link "+dir)
		}
	}
	if hidden, whiteout := strings.CutPrefix(path.Base(name), ".wh."); whiteout && (hidden == "" || hidden == "." || hidden == "..") {
		return escape(h.Name, " (a whiteout)")
	}
	delete(s.climbing, name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse:
	case tar.TypeLink:
		target, ok := inside(h.Linkname)
		if !ok {
			return escape(h.Linkname, " (hard link "+quote(h.Name)+")")
		}
		if s.climbing[target] {
			s.climbing[name] = true
		}
	case tar.TypeSymlink:
		// A link may point anywhere: inside the sandbox it is resolved below the sandbox's own root.
		if !path.IsAbs(h.Linkname) && climbs(path.Dir(name), h.Linkname) {
			s.climbing[name] = true
		}
	case tar.TypeXGlobalHeader:
	default:
		return invalid("the entry %s has the unknown type %q", quote(h.Name), h.Typeflag)
	}
	return nil
}

// inside cleans the name of an entry; false where it leads out of the root or is none.
func inside(name string) (string, bool) {
	if len(name) > 4096 || strings.ContainsRune(name, 0) {
		return "", false
	}
	rest := strings.TrimLeft(name, "/")
	if climbs(".", rest) {
		return "", false
	}
	return path.Clean(rest), true
}

// climbs reports whether following target from dir leaves the root at any step.
func climbs(dir, target string) bool {
	depth := 0
	if dir != "." {
		depth = strings.Count(dir, "/") + 1
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

func escape(name, how string) error {
	return invalid("the archive holds a path that escapes: %s%s", quote(name), how).WithHint("the archive is hostile or damaged; build the image anew")
}

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// meter hashes (where it has a sum) and counts what is read, and ends with over() beyond its bound.
type meter struct {
	ctx  context.Context
	r    io.Reader
	sum  hash.Hash
	left int64
	over func() error
}

// newMeter hashes what is to be size bytes.
func newMeter(ctx context.Context, r io.Reader, size int64) *meter {
	return &meter{ctx: ctx, r: r, sum: sha256.New(), left: size, over: func() error {
		return invalid("there are more than the %d bytes expected", size)
	}}
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	if m.left -= int64(n); m.left < 0 {
		return 0, m.over()
	}
	if m.sum != nil {
		m.sum.Write(p[:n])
	}
	return n, err
}

func (m *meter) digest() string { return "sha256:" + hex.EncodeToString(m.sum.Sum(nil)) }

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
