package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Every layer here is one that a hostile or broken tool could upload.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	hard := func(name, to string) entry { return entry{Name: name, Linkname: to, Typeflag: tar.TypeLink} }
	dir := func(name string) entry { return entry{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	for name, c := range map[string]struct {
		layers [][]entry
		words  string // empty: a good one
	}{
		"usual":                     {[][]entry{{dir("./"), dir("etc/"), regular("./etc/passwd", "x"), regular("/abs", "x"), hard("b", "abs"), regular("a/../b", "x")}}, ""},
		"links out of the root":     {[][]entry{{symlink("a", "/etc/passwd"), symlink("b", "../../etc"), symlink("c/d", "../e")}}, ""},
		"writes through a link":     {[][]entry{{symlink("lib", "usr/lib"), regular("lib/x", "y"), symlink("abs", "/usr"), regular("abs/x", "y")}}, ""},
		"replaces a climbing link":  {[][]entry{{symlink("a", "../x")}, {dir("a"), regular("a/b", "x")}}, ""},
		"whiteouts":                 {[][]entry{{regular("a/.wh..wh..opq", ""), regular(".wh.b", "")}}, ""},
		"devices":                   {[][]entry{{{Name: "dev/null", Typeflag: tar.TypeChar}, {Name: "p", Typeflag: tar.TypeFifo}}}, ""},
		"parent":                    {[][]entry{{regular("../x", "y")}}, "a path that escapes"},
		"deep parent":               {[][]entry{{regular("a/../../x", "y")}}, "a path that escapes"},
		"absolute parent":           {[][]entry{{regular("/../x", "y")}}, "a path that escapes"},
		"directory above":           {[][]entry{{dir("../")}}, "a path that escapes"},
		"parent and back":           {[][]entry{{regular("../root/x", "y")}}, "a path that escapes"},
		"hard link out":             {[][]entry{{hard("x", "../../etc/shadow")}}, "a path that escapes"},
		"through a climbing link":   {[][]entry{{symlink("a", "../../etc"), regular("a/cron.d/x", "y")}}, "through the link a"},
		"in a later layer":          {[][]entry{{symlink("d/a", "../../etc")}, {regular("d/a/x", "y")}}, "through the link d/a"},
		"through a second name":     {[][]entry{{symlink("a", "../etc"), hard("b", "a"), regular("b/x", "y")}}, "through the link b"},
		"climbing in the middle":    {[][]entry{{symlink("a", "b/../../c/../d"), regular("a/x", "y")}}, "through the link a"},
		"whiteout of the parent":    {[][]entry{{regular("a/.wh...", "")}}, "whiteout"},
		"whiteout of the directory": {[][]entry{{regular("a/.wh..", "")}}, "whiteout"},
		"a name too long":           {[][]entry{{regular(strings.Repeat("a/", 3000)+"x", "y")}}, "a path that escapes"},
		"an unknown type":           {[][]entry{{{Name: "x", Typeflag: 'Z'}}}, "unknown type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			var layers []layer
			for _, headers := range c.layers {
				layers = append(layers, plainLayer(tarOf(t, headers...)))
			}
			image := f.image("amd64", nil, layers...)
			_, err := Validate(t.Context(), image.Digest.String(), "amd64", f.open)
			if c.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantFault(t, err, fault.CodeInvalidArtifact, c.words)
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	content := tarOf(t, regular("app", "program"))
	simple := func(f *fake) v1.Descriptor { return f.image("amd64", nil, plainLayer(content)) }
	type change = func(*v1.Manifest, *v1.ConfigFile)
	changed := func(c change) func(f *fake) v1.Descriptor {
		return func(f *fake) v1.Descriptor { return f.image("amd64", c, plainLayer(content)) }
	}
	typed := func(media types.MediaType) func(f *fake) v1.Descriptor {
		return changed(func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].MediaType = media })
	}
	for name, c := range map[string]struct {
		make  func(f *fake) v1.Descriptor
		words string
	}{
		"foreign":                  {typed(types.OCIRestrictedLayer), "foreign"},
		"foreign zst":              {typed("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"), "foreign"},
		"encrypted":                {typed("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "encrypted"},
		"unknown":                  {typed("text/plain"), "unknown media type"},
		"not gzip":                 {typed(types.OCILayer), "not a readable tar"},
		"not zstd":                 {typed(types.OCILayerZStd), "not a readable tar"},
		"a size that is too small": {changed(func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size-- }), "instead of"},
		"a negative size":          {changed(func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size = -1 }), "not valid"},
		"an absurd size":           {changed(func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size = 1 << 60 }), "more than"},
		"another diff id":          {changed(func(_ *v1.Manifest, c *v1.ConfigFile) { c.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64) }), "unpacks to"},
		"no diff ids":              {changed(func(_ *v1.Manifest, c *v1.ConfigFile) { c.RootFS.DiffIDs = nil }), "lists 0"},
		"no layers":                {func(f *fake) v1.Descriptor { return f.image("amd64", nil) }, "no layers"},
		"schema 1":                 {changed(func(m *v1.Manifest, _ *v1.ConfigFile) { m.SchemaVersion = 1 }), "no image manifest"},
		"architecture":             {func(f *fake) v1.Descriptor { return f.image("s390x", nil, plainLayer(content)) }, "for linux/s390x"},
		"an index":                 {func(f *fake) v1.Descriptor { return f.put(types.OCIImageIndex, f.index(simple(f))) }, "index of several"},
		"no json":                  {func(f *fake) v1.Descriptor { return f.put(types.OCIManifestSchema1, []byte("hello")) }, "not readable"},
		"null":                     {func(f *fake) v1.Descriptor { return f.put(types.OCIManifestSchema1, []byte("null")) }, "no image manifest"},
		"too large": {func(f *fake) v1.Descriptor {
			return f.put(types.OCIManifestSchema1, []byte("{}"+strings.Repeat(" ", maxMetadata)))
		}, "at most"},
		"layer not uploaded": {func(f *fake) v1.Descriptor {
			d := simple(f)
			delete(f.blobs, digestOf(content))
			return d
		}, "layer sha256:"},
		"layer replaced": {func(f *fake) v1.Descriptor {
			d := simple(f)
			f.blobs[digestOf(content)] = tarOf(f.t, regular("app", "virus!!"))
			return d
		}, "does not match its digest"},
		"layer longer": {func(f *fake) v1.Descriptor {
			d := simple(f)
			f.blobs[digestOf(content)] = append(content[:len(content):len(content)], 0)
			return d
		}, "instead of"},
		"configuration replaced": {func(f *fake) v1.Descriptor {
			d := simple(f)
			for digest, b := range f.blobs {
				if bytes.Contains(b, []byte("rootfs")) {
					f.blobs[digest] = bytes.Replace(b, []byte("serve"), []byte("rm -f"), 1)
				}
			}
			return d
		}, "does not match its digest"},
		"128 layers": {func(f *fake) v1.Descriptor {
			layers := make([]layer, 128)
			for i := range layers {
				layers[i] = plainLayer(content)
			}
			return f.image("amd64", nil, layers...)
		}, "squash"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			d := c.make(f)
			_, err := Validate(t.Context(), d.Digest.String(), "amd64", f.open)
			wantFault(t, err, fault.CodeInvalidArtifact, c.words)
		})
	}
	for _, digest := range []string{"", "sha256:", "md5:abc", "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("a", 63) + "/"} {
		_, err := Validate(t.Context(), digest, "amd64", newFake(t).open)
		wantFault(t, err, fault.CodeInvalidArtifact, "not sha256")
	}
}

// The bound holds over all layers, for what is compressed, and for a sparse file that is large only on disk.
func TestUnpackedSizeIsBounded(t *testing.T) {
	t.Parallel()
	zeros := tarOf(t, regular("zeros", strings.Repeat("\x00", 3<<20)))
	half := tarOf(t, regular("half", strings.Repeat("x", 3<<19)))
	other := tarOf(t, regular("other", strings.Repeat("x", 3<<19)))
	for name, layers := range map[string][]layer{
		"gzip":       {{types.OCILayer, gz(t, zeros), zeros}},
		"zstd":       {{types.OCILayerZStd, zst(t, zeros), zeros}},
		"plain":      {plainLayer(zeros)},
		"two layers": {plainLayer(half), plainLayer(other)},
		"padding":    {plainLayer(append(tarOf(t, regular("a", "")), make([]byte, 3<<19)...)), plainLayer(append(tarOf(t, regular("b", "")), make([]byte, 3<<19)...))},
		"sparse":     {plainLayer(oldSparse(t, 1<<40))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			d := f.image("amd64", nil, layers...)
			_, err := ValidateWithin(t.Context(), d.Digest.String(), "amd64", 2<<20, f.open)
			wantFault(t, err, fault.CodeInvalidArtifact, "more than")
			if name == "sparse" {
				_, err := Validate(t.Context(), d.Digest.String(), "amd64", f.open)
				wantFault(t, err, fault.CodeInvalidArtifact, "unpacks to more than 4096 MiB")
				return
			}
			if _, err := ValidateWithin(t.Context(), d.Digest.String(), "amd64", 8<<20, f.open); err != nil {
				t.Error(err)
			}
		})
	}
}

// oldSparse is a tar with a GNU sparse file that says it has size bytes and stores none.
func oldSparse(t testing.TB, size int64) []byte {
	t.Helper()
	block := make([]byte, 512)
	copy(block, "sparse")
	copy(block[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	copy(block[257:], "ustar  \x00")
	block[156] = tar.TypeGNUSparse
	number := func(at int, n int64) {
		for i := 11; i >= 4; i-- {
			block[at+i] = byte(n)
			n >>= 8
		}
		block[at] = 0x80
	}
	number(386, size) // one empty fragment at the end
	number(398, 0)
	number(483, size)
	copy(block[148:], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
	out := append(block, make([]byte, 1024)...)
	h, err := tar.NewReader(bytes.NewReader(out)).Next()
	if err != nil || h.Size != size {
		t.Fatalf("the test's own archive is wrong: %+v, %v", h, err)
	}
	return out
}

func TestValidatePassesTheStoresFaultsOn(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.image("amd64", nil, plainLayer(tarOf(t, regular("app", "x"))))
	down := fault.New(fault.CodeUnavailable, "the store is down")
	_, err := Validate(t.Context(), d.Digest.String(), "amd64", func(digest string) (io.ReadCloser, int64, error) {
		if digest == d.Digest.String() {
			return f.open(digest)
		}
		return nil, 0, down
	})
	if !errors.Is(err, down) || fault.CodeOf(err) != fault.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Validate(ctx, d.Digest.String(), "amd64", f.open); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	a, err := Validate(t.Context(), d.Digest.String(), "amd64", f.open)
	if err != nil || a != (functions.Artifact{Digest: d.Digest.String(), Architecture: "amd64", Size: a.Size}) || a.Size == 0 {
		t.Errorf("got %+v, %v", a, err)
	}
}

// Whatever the bytes of a layer are, reading it ends in a fault or in a digest, never in a panic.
func FuzzLayer(f *testing.F) {
	good := tarOf(f, regular("app", "program"), symlink("a", "../b"), regular("c/d", "e"))
	f.Add(oldSparse(f, 1<<20), uint8(0))
	f.Add(good, uint8(0))
	f.Add(gz(f, good), uint8(1))
	f.Add(zst(f, good), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		media := []types.MediaType{types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd}[kind%3]
		fk := newFake(t)
		d := fk.put(media, data)
		s := &scan{ctx: t.Context(), left: 1 << 20, most: 1 << 20, entries: 1000, climbing: map[string]bool{}}
		digest, err := s.layer(d, fk.open)
		if err == nil && !ValidDigest(digest) {
			t.Fatalf("digest %q", digest)
		}
		if err != nil && fault.CodeOf(err) != fault.CodeInvalidArtifact {
			t.Fatalf("not a fault of the artifact: %v", err)
		}
	})
}
