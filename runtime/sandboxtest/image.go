package sandboxtest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Blobs is a directory of blobs by digest: the artifact store of the tests. Another process can open the same directory.
type Blobs string

// Open returns a blob and its size.
func (b Blobs) Open(_ context.Context, digest string) (io.ReadCloser, int64, error) {
	f, err := os.Open(b.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fault.Wrap(fault.CodeNotFound, err, "there is no blob %s", digest)
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (b Blobs) path(digest string) string {
	return filepath.Join(string(b), strings.ReplaceAll(digest, ":", "-"))
}

// Put stores an image's blobs and returns its artifact.
func (b Blobs) Put(t testing.TB, img v1.Image) functions.Artifact {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(h v1.Hash, raw []byte) { must(os.WriteFile(b.path(h.String()), raw, 0o600)) }
	layers, err := img.Layers()
	must(err)
	for _, l := range layers {
		h, err := l.Digest()
		must(err)
		rc, err := l.Compressed()
		must(err)
		raw, err := io.ReadAll(rc)
		must(err)
		rc.Close()
		put(h, raw)
	}
	config, err := img.RawConfigFile()
	must(err)
	name, err := img.ConfigName()
	must(err)
	put(name, config)
	manifest, err := img.RawManifest()
	must(err)
	digest, err := img.Digest()
	must(err)
	put(digest, manifest)
	return functions.Artifact{Digest: digest.String(), Architecture: runtime.GOARCH}
}

// Entry is a file of a layer.
type Entry struct {
	Name string
	Body []byte
	Mode int64
	// Link makes it a symbolic link.
	Link string
	// Major and Minor make it the node of a character device.
	Major, Minor int64
}

// Layer packs entries in their order.
func Layer(t testing.TB, entries ...Entry) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Mode: e.Mode, Size: int64(len(e.Body)), Typeflag: tar.TypeReg}
		switch {
		case e.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		case strings.HasSuffix(e.Name, "/"):
			h.Typeflag = tar.TypeDir
		case e.Major != 0:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, e.Major, e.Minor
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Image puts layers and a configuration together.
func Image(t testing.TB, config v1.Config, architecture string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", architecture, config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

// BuildFunction builds the test function and returns it as a layer with the one file /testfn.
func BuildFunction(t testing.TB) v1.Layer {
	t.Helper()
	return Layer(t, Entry{Name: "testfn", Body: Program(t, "runtime/sandboxtest/testfn"), Mode: 0o755})
}

// EnvPrograms names a directory that has the tests' programs by the last part of their package, for a machine without a compiler.
const EnvPrograms = "TATAMI_TEST_PROGRAMS"

// Program builds a package of this module, static and for Linux, and returns the program.
func Program(t testing.TB, pkg string) []byte {
	t.Helper()
	out := filepath.Join(os.Getenv(EnvPrograms), filepath.Base(pkg))
	if os.Getenv(EnvPrograms) == "" {
		out = filepath.Join(t.TempDir(), filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/tatami-faas/tatami/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("the test program %s cannot be built: %v\n%s", pkg, err, msg)
		}
	}
	body, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
