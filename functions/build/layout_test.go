package build

import (
	"archive/tar"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
)

func amd64() Options { return Options{Architecture: "amd64"} }

func TestLayoutInEveryForm(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	one, two, three := tarOf(t, regular("app", "program")), tarOf(t, regular("etc/x", "y"), symlink("abs", "/etc")), tarOf(t, regular("./z", "z"))
	image := f.image("amd64", nil, layer{types.OCILayer, gz(t, one), one}, layer{types.OCILayerZStd, zst(t, two), two}, plainLayer(three))
	other := f.image("arm64", nil, plainLayer(one))
	attestation := f.image("amd64", nil, plainLayer(three))
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	nested := f.put(types.OCIImageIndex, f.index(other, image, attestation))
	bare := image
	bare.Platform = nil

	for name, manifests := range map[string][]v1.Descriptor{
		"plain": {image}, "several platforms": {other, image}, "nested": {nested}, "no platform": {bare}, "twice the same": {image, image},
	} {
		t.Run(name, func(t *testing.T) {
			dir := f.layout(manifests...)
			raw := f.layoutTar(manifests...)
			base := t.TempDir()
			paths := []string{
				dir, writeFile(t, filepath.Join(base, "plain.tar"), raw),
				writeFile(t, filepath.Join(base, "a.tgz"), gz(t, raw)), writeFile(t, filepath.Join(base, "a.tar.zst"), zst(t, raw)),
			}
			for _, path := range paths {
				kind, err := Detect(path)
				if err != nil {
					t.Fatal(err)
				}
				if want := map[bool]Kind{true: KindLayout, false: KindArchive}[path == dir]; kind != want {
					t.Errorf("%s is %s", path, kind)
				}
				got, err := Build(t.Context(), Request{Path: path, Options: amd64()})
				if err != nil {
					t.Fatal(path, err)
				}
				defer got.Close()
				if got.Digest != image.Digest.String() {
					t.Errorf("%s: an OCI image must keep its digest %s, got %s", path, image.Digest, got.Digest)
				}
				if !slices.Equal(got.Command, []string{"/app", "serve"}) {
					t.Errorf("command %q", got.Command)
				}
				if got.Name != path {
					t.Errorf("name %q", got.Name)
				}
				verify(t, got)
			}
		})
	}
}

func TestTemporaryFilesGo(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	image := f.image("amd64", nil, plainLayer(tarOf(t, regular("app", "x"))))
	temp := t.TempDir()
	o := amd64()
	o.TempDir = temp
	left := func() int {
		entries, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	got, err := OpenArchive(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "a.tgz"), gz(t, f.layoutTar(image))), o)
	if err != nil {
		t.Fatal(err)
	}
	if left() != 1 {
		t.Errorf("%d temporary files", left())
	}
	for range 2 {
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := OpenArchive(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "b.tgz"), gz(t, tarOf(t, regular("x", "y")))), o); err == nil {
		t.Error("accepted")
	}
	if left() != 0 {
		t.Errorf("%d temporary files are left", left())
	}
}

// Docker's own media types become OCI's; the configuration and the layers stay as they are.
func TestLayoutOfDockerTypesIsConverted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	content := tarOf(t, regular("app", "program"))
	image := f.image("amd64", func(m *v1.Manifest, _ *v1.ConfigFile) {
		m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	}, layer{types.DockerLayer, gz(t, content), content})
	got, err := OpenLayout(t.Context(), f.layout(image), amd64())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Digest == image.Digest.String() {
		t.Error("the manifest was not rewritten")
	}
	if strings.Contains(string(got.Manifest), "docker") {
		t.Errorf("Docker's media types are left: %s", got.Manifest)
	}
	verify(t, got)
	_, err = Validate(t.Context(), image.Digest.String(), "amd64", f.open)
	wantFault(t, err, fault.CodeInvalidArtifact, "Docker's")
}

func saved(t *testing.T, f *fake, images []savedImage, members ...entry) string {
	t.Helper()
	list, err := json.Marshal(images)
	if err != nil {
		t.Fatal(err)
	}
	members = append(members, regular("manifest.json", string(list)))
	return writeFile(t, filepath.Join(t.TempDir(), "image.tar"), tarOf(t, members...))
}

func TestDockerSave(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	one, two := tarOf(t, regular("app", "program")), tarOf(t, regular("b", "c"))
	f.image("amd64", nil, plainLayer(one), layer{types.OCILayer, gz(t, two), two}, plainLayer(one))
	var config []byte
	for _, b := range f.blobs {
		if strings.Contains(string(b), "rootfs") {
			config = b
		}
	}
	// The third layer is a link to the first, as older Docker writes equal layers.
	path := saved(t, f, []savedImage{{Config: "c.json", RepoTags: []string{"a:1"}, Layers: []string{"1/layer.tar", "2/layer.tar", "3/layer.tar"}}},
		regular("c.json", string(config)), regular("1/layer.tar", string(one)), regular("2/layer.tar", string(gz(t, two))), symlink("3/layer.tar", "../1/layer.tar"))
	var steps []string
	o := amd64()
	o.Progress = func(p Progress) { steps = append(steps, p.Step) }
	got, err := Build(t.Context(), Request{Path: path, Options: o})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	verify(t, got)
	if len(got.Blobs) != 4 {
		t.Errorf("%d blobs", len(got.Blobs))
	}
	if !slices.Contains(steps, "check") {
		t.Errorf("steps %v", steps)
	}
	again, err := OpenArchive(t.Context(), path, amd64())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Digest != got.Digest {
		t.Error("the digest is not reproducible")
	}

	row := savedImage{Config: "c.json", Layers: []string{"1/layer.tar"}}
	one2 := regular("1/layer.tar", string(one))
	conf := regular("c.json", string(config))
	for name, c := range map[string]struct {
		images  []savedImage
		members []entry
		words   string
	}{
		"no image":           {nil, nil, "holds no image"},
		"two images":         {[]savedImage{{RepoTags: []string{"a:1"}}, {RepoTags: []string{"b:2"}}}, nil, "2 images: \"a:1, b:2\""},
		"no configuration":   {[]savedImage{row}, []entry{one2}, "c.json is missing"},
		"no layer":           {[]savedImage{row}, []entry{conf}, `layer "1/layer.tar" is missing`},
		"layer count":        {[]savedImage{row}, []entry{conf, one2}, "configuration lists 3"},
		"layer escapes":      {[]savedImage{{Config: "c.json", Layers: []string{"../../etc/passwd"}}}, []entry{conf}, "a path that escapes"},
		"config escapes":     {[]savedImage{{Config: "/../../etc/passwd"}}, []entry{conf}, "a path that escapes"},
		"link escapes":       {[]savedImage{row}, []entry{conf, symlink("1/layer.tar", "../../etc/passwd")}, "a path that escapes"},
		"link to itself":     {[]savedImage{row}, []entry{conf, symlink("1/layer.tar", "layer.tar")}, "missing"},
		"config is no json":  {[]savedImage{row}, []entry{regular("c.json", "{"), one2}, "configuration is not readable"},
		"a layer is no tar":  {[]savedImage{{Config: "c.json", Layers: []string{"1", "1", "1"}}}, []entry{conf, regular("1", strings.Repeat("x", 2000))}, "not a readable tar"},
		"too many layers":    {[]savedImage{{Config: "c.json", Layers: make([]string, 128)}}, []entry{conf}, "128 layers"},
		"a device is inside": {[]savedImage{row}, []entry{{Name: "dev", Typeflag: tar.TypeChar}}, "it is no image"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenArchive(t.Context(), saved(t, f, c.images, c.members...), amd64())
			wantFault(t, err, fault.CodeInvalidArtifact, c.words)
		})
	}
}

func TestBadLayouts(t *testing.T) {
	t.Parallel()
	content := tarOf(t, regular("app", "program"))
	for name, c := range map[string]struct {
		make  func(f *fake) string
		words []string
	}{
		"empty index": {func(f *fake) string { return f.layout() }, []string{"holds no image"}},
		"index is no json": {func(f *fake) string {
			dir := f.layout()
			f.write(dir, "index.json", []byte("{"))
			return dir
		}, []string{"index is not readable"}},
		"no index": {func(f *fake) string {
			dir := f.layout()
			if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
				f.t.Fatal(err)
			}
			return dir
		}, []string{"index.json is missing"}},
		"other architecture": {func(f *fake) string { return f.layout(f.image("arm64", nil, plainLayer(content))) },
			[]string{"no image for linux/amd64, only for linux/arm64", "docker build --platform linux/amd64"}},
		"index lies about the architecture": {func(f *fake) string {
			d := f.image("arm64", nil, plainLayer(content))
			d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
			return f.layout(d)
		}, []string{"the image is for linux/arm64, the nodes are linux/amd64"}},
		"windows": {func(f *fake) string {
			return f.layout(f.image("amd64", func(_ *v1.Manifest, c *v1.ConfigFile) { c.OS = "windows" }, plainLayer(content)))
		}, []string{"only for windows/amd64"}},
		"two images": {func(f *fake) string {
			a, b := f.image("amd64", nil, plainLayer(content)), f.image("amd64", nil, plainLayer(tarOf(f.t, regular("b", ""))))
			a.Annotations = map[string]string{"org.opencontainers.image.ref.name": "one"}
			return f.layout(a, b)
		}, []string{"holds 2 images", "one"}},
		"manifest missing": {func(f *fake) string {
			d := f.image("amd64", nil, plainLayer(content))
			delete(f.blobs, d.Digest.String())
			return f.layout(d)
		}, []string{"manifest", "is missing"}},
		"manifest changed": {func(f *fake) string {
			d := f.image("amd64", nil, plainLayer(content))
			b := f.blobs[d.Digest.String()]
			f.blobs[d.Digest.String()] = append(append([]byte(nil), b[:len(b)-1]...), ' ')
			return f.layout(d)
		}, []string{"does not match its digest"}},
		"index in index without end": {func(f *fake) string {
			d := f.put(types.OCIImageIndex, f.index(f.image("amd64", nil, plainLayer(content))))
			for range 10 {
				d = f.put(types.OCIImageIndex, f.index(d))
			}
			return f.layout(d)
		}, []string{"deep"}},
		"many manifests": {func(f *fake) string {
			return f.layout(slices.Repeat([]v1.Descriptor{f.image("arm64", nil, plainLayer(content))}, 1001)...)
		}, []string{"more than 1000"}},
		"sha512": {func(f *fake) string {
			d := f.image("amd64", nil, plainLayer(content))
			d.Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}
			return f.layout(d)
		}, []string{"not sha256"}},
		"a digest that is a path": {func(f *fake) string {
			d := f.image("amd64", nil, plainLayer(content))
			dir := f.layout(d)
			raw := strings.Replace(string(f.index(d)), d.Digest.String(), "sha256:../../../../etc/passwd", 1)
			f.write(dir, "index.json", []byte(raw))
			return dir
		}, []string{"not readable"}},
		"helm chart": {func(f *fake) string {
			return f.layout(f.image("amd64", func(m *v1.Manifest, _ *v1.ConfigFile) {
				m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
			}, plainLayer(content)))
		}, []string{"not a container image", "helm"}},
		"schema 1": {func(f *fake) string {
			d := f.image("amd64", nil, plainLayer(content))
			d.MediaType = types.DockerManifestSchema1Signed
			return f.layout(d)
		}, []string{"schema 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenLayout(t.Context(), c.make(newFake(t)), amd64())
			wantFault(t, err, fault.CodeInvalidArtifact, c.words...)
		})
	}
}

func TestBadArchives(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	good := f.layoutTar(f.image("amd64", nil, plainLayer(tarOf(t, regular("app", "program")))))
	damaged := slices.Clone(good)
	damaged[1024+10] ^= 0x20 // in the second member's header
	for name, c := range map[string]struct {
		data  []byte
		words []string
	}{
		"a bare file system": {tarOf(t, regular("bin/sh", "x"), regular("etc/passwd", "y")), []string{"neither index.json", "docker export"}},
		"an empty tar":       {tarOf(t), []string{"neither"}},
		"a path escapes":     {tarOf(t, regular("../../etc/cron.d/x", "x"), regular("index.json", "{}")), []string{"a path that escapes"}},
		"cut off":            {good[:len(good)/2], []string{"not a readable tar"}},
		"damaged":            {damaged, []string{"not a readable tar"}},
		"gzip of nothing":    {gz(t, nil), []string{"neither"}},
		"cut off gzip":       {gz(t, good)[:200], []string{"unpack"}},
		"gzip of no tar":     {gz(t, []byte(strings.Repeat("hello ", 1000))), []string{"not a readable tar"}},
		"a gzip bomb":        {gz(t, make([]byte, 3<<20)), []string{"more than 2097152 bytes"}},
		"a zstd bomb":        {zst(t, make([]byte, 3<<20)), []string{"more than 2097152 bytes"}},
		"index too large":    {tarOf(t, regular("index.json", strings.Repeat(" ", maxMetadata+1))), []string{"at most 4194304 are read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := amd64()
			o.TempDir = t.TempDir()
			if strings.Contains(name, "bomb") {
				o.MaxUnpacked = 2 << 20
			}
			_, err := OpenArchive(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "x.tar"), c.data), o)
			wantFault(t, err, fault.CodeInvalidArtifact, c.words...)
			if left, _ := os.ReadDir(o.TempDir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// An image that cannot start by itself needs a command in the file.
func TestImageWithoutCommand(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	dir := f.layout(f.image("amd64", func(_ *v1.Manifest, c *v1.ConfigFile) { c.Config = v1.Config{} }, plainLayer(tarOf(t, regular("app", "program")))))
	file := spec.New("a")
	file.Path, file.Source = filepath.Join(dir, spec.FileName), "."
	_, err := Build(t.Context(), Request{File: file, Options: amd64()})
	wantFault(t, err, fault.CodeInvalidArtifact, "neither an entrypoint nor a command")
	file.Config.Command = []string{"/app"}
	image, err := Build(t.Context(), Request{File: file, Options: amd64()})
	if err != nil {
		t.Fatal(err)
	}
	image.Close()

	file.Handler = "cmd/x"
	_, err = Build(t.Context(), Request{File: file, Options: amd64()})
	wantFault(t, err, fault.CodeInvalidSpec, "handler")
	_, err = Build(t.Context(), Request{File: &spec.File{Image: "nginx"}})
	wantFault(t, err, fault.CodeInvalidRequest, "nothing to build")
}
