package build

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// foreign is an image that another tool's library made.
func foreign(t *testing.T) v1.Image {
	t.Helper()
	content := tarOf(t, regular("app", strings.Repeat("program", 1000)))
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture, config.Config.Cmd = "linux", "amd64", []string{"/app"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

func TestImagesOfAnotherLibrary(t *testing.T) {
	t.Parallel()
	image := foreign(t)
	dir := t.TempDir()
	if p, err := layout.Write(dir, empty.Index); err != nil {
		t.Fatal(err)
	} else if err := p.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	tag, err := name.NewTag("example/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(saved, tag, image); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, saved} {
		got, err := Build(t.Context(), Request{Path: path, Options: amd64()})
		if err != nil {
			t.Fatal(path, err)
		}
		defer got.Close()
		verify(t, got)
		taken(t, got)
	}
}

// Another library finds nothing wrong with what was built.
func TestBuiltImageIsValidElsewhere(t *testing.T) {
	t.Parallel()
	image, err := Binary(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "server"), program(nil, "code")), amd64())
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	taken(t, image)
}

// taken writes the image's blobs as a layout and lets the other library judge it.
func taken(t *testing.T, image *Image) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	digest, err := v1.NewHash(image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "index.json"), newFake(t).index(v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Size: int64(len(image.Manifest)), Digest: digest}))
	for _, b := range image.Blobs {
		r, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		writeFile(t, filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(b.Digest, "sha256:")), data)
	}
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	read, err := path.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(read); err != nil {
		t.Error(err)
	}
}
