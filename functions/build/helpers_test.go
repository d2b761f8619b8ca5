package build

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/process"
)

// wantFault fails unless err has the code, a next step where one is asked for, and the words.
func wantFault(t *testing.T, err error, code fault.Code, words ...string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Code != code {
		t.Fatalf("want a fault %s, got %v", code, err)
	}
	text := f.Error() + "\n" + f.Hint + "\n" + strings.Join(f.Details, "\n")
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

// entry is one member of a tar that a test writes.
type entry struct {
	Name, Linkname string
	Typeflag       byte
	Mode           int64
	body           string
}

// tarOf writes a tar of the entries; one without a type is a regular file.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Linkname: e.Linkname, Typeflag: e.Typeflag, Mode: e.Mode, Size: int64(len(e.body))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func regular(name, body string) entry { return entry{Name: name, Mode: 0o644, body: body} }

func symlink(name, to string) entry {
	return entry{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// fake is an image under construction: blobs by digest.
type fake struct {
	t     *testing.T
	blobs map[string][]byte
}

func newFake(t *testing.T) *fake { return &fake{t: t, blobs: map[string][]byte{}} }

func (f *fake) put(media types.MediaType, data []byte) v1.Descriptor {
	f.t.Helper()
	digest := digestOf(data)
	f.blobs[digest] = data
	d, err := descriptor(media, digest, int64(len(data)))
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func (f *fake) json(media types.MediaType, v any) v1.Descriptor {
	f.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.put(media, data)
}

// layer is a layer as it is stored, with its tar.
type layer struct {
	media types.MediaType
	data  []byte
	tar   []byte
}

func plainLayer(data []byte) layer { return layer{types.OCIUncompressedLayer, data, data} }

// image puts a whole image for an architecture and returns its manifest's descriptor.
func (f *fake) image(arch string, change func(*v1.Manifest, *v1.ConfigFile), layers ...layer) v1.Descriptor {
	f.t.Helper()
	config := v1.ConfigFile{OS: "linux", Architecture: arch, Config: v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}}}
	config.RootFS.Type = "layers"
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: types.OCIConfigJSON}}
	for _, l := range layers {
		m.Layers = append(m.Layers, f.put(l.media, l.data))
		diff, err := v1.NewHash(digestOf(l.tar))
		if err != nil {
			f.t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diff)
	}
	if change != nil {
		change(&m, &config)
	}
	media := m.Config.MediaType
	m.Config = f.json(media, config)
	d := f.json(m.MediaType, m)
	d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture}
	return d
}

func (f *fake) open(digest string) (io.ReadCloser, int64, error) {
	data, ok := f.blobs[digest]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

// index returns an index.json of the descriptors.
func (f *fake) index(manifests ...v1.Descriptor) []byte {
	f.t.Helper()
	data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: manifests})
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// layout writes an OCI layout directory.
func (f *fake) layout(manifests ...v1.Descriptor) string {
	f.t.Helper()
	dir := f.t.TempDir()
	f.write(dir, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	f.write(dir, "index.json", f.index(manifests...))
	for digest, data := range f.blobs {
		f.write(dir, filepath.Join("blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), data)
	}
	return dir
}

// layoutTar writes the same as a tar.
func (f *fake) layoutTar(manifests ...v1.Descriptor) []byte {
	f.t.Helper()
	members := []entry{regular("./oci-layout", `{"imageLayoutVersion":"1.0.0"}`), regular("./index.json", string(f.index(manifests...)))}
	for digest, data := range f.blobs {
		members = append(members, regular("./blobs/sha256/"+strings.TrimPrefix(digest, "sha256:"), string(data)))
	}
	return tarOf(f.t, members...)
}

func (f *fake) write(dir, name string, data []byte) { writeFile(f.t, filepath.Join(dir, name), data) }

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// verify checks what every image promises: each blob is what its digest says, the manifest comes last, and the server takes it.
func verify(t *testing.T, image *Image) {
	t.Helper()
	seen := map[string]bool{}
	for _, b := range image.Blobs {
		if seen[b.Digest] {
			t.Errorf("%s is there twice", b.Digest)
		}
		seen[b.Digest] = true
		for range 2 {
			r, err := b.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if digestOf(data) != b.Digest || int64(len(data)) != b.Size {
				t.Errorf("%s has another content, %d bytes", b.Digest, len(data))
			}
		}
	}
	if last := image.Blobs[len(image.Blobs)-1]; last.Digest != image.Digest || digestOf(image.Manifest) != image.Digest {
		t.Errorf("the manifest %s is not last", image.Digest)
	}
	got, err := Validate(t.Context(), image.Digest, image.Architecture, func(digest string) (io.ReadCloser, int64, error) {
		b, ok := image.Blob(digest)
		if !ok {
			return nil, 0, fault.New(fault.CodeNotFound, "no blob %s", digest)
		}
		r, err := b.Open()
		return r, b.Size, err
	})
	if err != nil {
		t.Fatalf("the server refuses it: %v", err)
	}
	if got.Digest != image.Digest || got.Size != image.Size || got.Architecture != image.Architecture {
		t.Errorf("the server sees %+v instead of %+v", got, image.Artifact())
	}
}

func writeScript(t *testing.T, path, text string) string {
	t.Helper()
	if err := process.WriteProgram(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
