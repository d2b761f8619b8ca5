//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// A function comes from a Go directory, a static binary, an image in a registry, an OCI layout (directory or tar), a docker-save tar.
func TestDeployForms(t *testing.T) {
	s := harness.Start(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
	build.Dir = filepath.Join(harness.Root(t), "functions", "examples", "probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	img := imageOf(t, bin, runtime.GOARCH)

	layoutDir := filepath.Join(dir, "layout")
	p, err := layout.Write(layoutDir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	layoutTar := filepath.Join(dir, "layout.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", layoutDir, "-cf", layoutTar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	saved := filepath.Join(dir, "saved.tar")
	tag, err := name.NewTag("example.com/probe:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(saved, tag, img); err != nil {
		t.Fatal(err)
	}
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(bytes.NewBuffer(nil), "", 0))))
	t.Cleanup(reg.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(reg.URL, "http://") + "/team/probe:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}

	for form, args := range map[string][]string{
		"source":        {build.Dir},
		"binary":        {bin},
		"layout":        {layoutDir},
		"layout-tar":    {layoutTar},
		"docker-save":   {saved},
		"registry-pull": {"--image", ref.String()},
	} {
		t.Run(form, func(t *testing.T) {
			s.Must(append([]string{"deploy", "--name", form}, args...)...)
			if resp, body := s.Get("/fn/" + form + "/whoami"); resp.StatusCode != 200 || !strings.Contains(body, "65532") {
				t.Errorf("%s %s", resp.Status, body)
			}
			s.Must("delete", form, "--yes")
		})
	}

	other := filepath.Join(dir, "other.tar")
	if err := tarball.WriteToFile(other, tag, imageOf(t, bin, "s390x")); err != nil {
		t.Fatal(err)
	}
	escape := filepath.Join(dir, "escape.tar")
	if err := tarball.WriteToFile(escape, tag, escaping(t)); err != nil {
		t.Fatal(err)
	}
	noImage := filepath.Join(dir, "no-image.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", build.Dir, "-cf", noImage, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, c := range []struct {
		what, says string
		args       []string
		exit       int
	}{
		{"another architecture", "s390x", []string{other}, 2},
		{"a path that escapes", "escape", []string{escape}, 2},
		{"an archive that is no image", "image", []string{noImage}, 2},
		{"a registry that is not there", "127.0.0.1:1", []string{"--image", "127.0.0.1:1/team/probe:1"}, 8},
		{"an image that is not there", "nothing", []string{"--image", strings.TrimPrefix(reg.URL, "http://") + "/team/nothing:1"}, 4},
		{"a name that is none", "Bad_Name", []string{"--name", "Bad_Name", bin}, 2},
		{"memory above the node", "memory", []string{"--name", "huge", "--file", specFile(t, "name: huge\nsource: "+bin+"\nmemory: 900Gi\n")}, 2},
	} {
		t.Run(c.what, func(t *testing.T) {
			args := c.args
			if !strings.Contains(strings.Join(args, " "), "--name") {
				args = append([]string{"--name", "bad"}, args...)
			}
			r := s.CLI(append([]string{"deploy"}, args...)...)
			if r.Exit != c.exit || !strings.Contains(r.Stderr, c.says) {
				t.Errorf("ended with %d, want %d and %q:\n%s", r.Exit, c.exit, c.says, r.Stderr)
			}
			if out := s.Must("fn", "ls", "-o", "name").Stdout; out != "" {
				t.Errorf("a refused deploy left %q", out)
			}
		})
	}
}

func specFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tatami.yaml")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// imageOf makes an image of one layer with the binary as its entrypoint.
func imageOf(t *testing.T, bin, arch string) v1.Image {
	t.Helper()
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return imageWith(t, arch, &tar.Header{Name: "app/function", Mode: 0o755, Size: int64(len(b))}, b)
}

// escaping makes an image whose layer wants to write outside its root.
func escaping(t *testing.T) v1.Image {
	return imageWith(t, runtime.GOARCH, &tar.Header{Name: "../../etc/tatami-escape", Mode: 0o644, Size: 1}, []byte("x"))
}

func imageWith(t *testing.T, arch string, h *tar.Header, content []byte) v1.Image {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(opener(layer.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, withEntrypoint(t, img, arch))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func withEntrypoint(t *testing.T, img v1.Image, arch string) *v1.ConfigFile {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", arch
	cfg.Config.Entrypoint = []string{"/app/function"}
	return cfg
}
