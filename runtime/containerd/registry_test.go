//go:build linux

package containerd

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/process"
)

// serveRegistry runs a registry on the loopback device, with a user where one is given, and pushes an image to it.
func serveRegistry(t *testing.T, user, password string, layers ...v1.Layer) functions.Artifact {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	guard := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if guard != "" && u+":"+p != guard {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	img := sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/testfn"}}, goruntime.GOARCH, layers...)
	ref := strings.TrimPrefix(srv.URL, "http://") + "/team/fn"
	tag, err := name.NewTag(ref + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	if user != "" {
		guard = user + ":" + password
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return functions.Artifact{Digest: digest.String(), Reference: ref, Architecture: goruntime.GOARCH}
}

func dockerConfig(t *testing.T, host, user, password string) string {
	t.Helper()
	dir := t.TempDir()
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	layer := sandboxtest.Layer(t, sandboxtest.Entry{Name: "file", Body: []byte("x"), Mode: 0o644})
	open := serveRegistry(t, "", "", layer)
	guarded := serveRegistry(t, "me", "secret", layer)
	host, _, _ := strings.Cut(guarded.Reference, "/")

	nobody, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}

	absent := open
	absent.Digest = "sha256:" + strings.Repeat("0", 64)
	away := open
	away.Reference = nobody + "/team/fn"
	for _, c := range []struct {
		name   string
		a      functions.Artifact
		docker string
		want   fault.Code
	}{
		{"open", open, t.TempDir(), ""},
		{"with credentials", guarded, dockerConfig(t, host, "me", "secret"), ""},
		{"without credentials", guarded, t.TempDir(), fault.CodeDenied},
		{"with wrong credentials", guarded, dockerConfig(t, host, "me", "guess"), fault.CodeDenied},
		{"no such image", absent, t.TempDir(), fault.CodeInvalidArtifact},
		{"nobody there", away, t.TempDir(), fault.CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, err := New(Config{DataDir: "/d", RunDir: "/r", DockerConfig: c.docker}, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx := d.scope(t.Context())
			src, desc, err := d.source(ctx, c.a)
			if err == nil {
				var manifest ocispec.Manifest
				if manifest, _, err = readManifest(ctx, src, desc); err == nil {
					_, _, err = readConfig(ctx, src, manifest)
				}
			}
			if got := fault.CodeOf(err); got != c.want {
				t.Errorf("%s: %v", got, err)
			}
		})
	}
}
