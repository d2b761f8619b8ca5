package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/process"
)

func TestParseReference(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	for s, want := range map[string]Reference{
		"nginx":                            {Repository: "docker.io/library/nginx", Tag: "latest"},
		"nginx:1.25":                       {Repository: "docker.io/library/nginx", Tag: "1.25"},
		"docker.io/team/app":               {Repository: "docker.io/team/app", Tag: "latest"},
		"127.0.0.1:5000/x:y":               {Repository: "127.0.0.1:5000/x", Tag: "y"},
		"localhost:5000/x":                 {Repository: "localhost:5000/x", Tag: "latest"},
		"ghcr.io/a/b/c@" + digest:          {Repository: "ghcr.io/a/b/c", Digest: digest},
		"registry.example/a:tag@" + digest: {Repository: "registry.example/a", Digest: digest},
	} {
		got, err := ParseReference(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		got.ref = nil
		if got != want {
			t.Errorf("%s: got %+v", s, got)
		}
		if again, err := ParseReference(got.String()); err != nil || again.String() != got.String() {
			t.Errorf("%s is written %s, which reads as %s, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "Nginx", "https://docker.io/nginx", "a b", "nginx:", "nginx@sha256:abc", "nginx:" + strings.Repeat("x", 200), "../x", "./image.tar", "/srv/image.tar", "x\x00y"} {
		if got, err := ParseReference(s); !fault.Is(err, fault.CodeInvalidSpec) {
			t.Errorf("%q: got %s, %v", s, got, err)
		}
	}
}

// push stores an image, or an index, in a registry under a tag.
func push(t *testing.T, base string, f *fake, repo, tag string, raw []byte, media types.MediaType) {
	t.Helper()
	for digest, data := range f.blobs {
		send(t, http.MethodPost, fmt.Sprintf("%s/v2/%s/blobs/uploads/?digest=%s", base, repo, digest), "application/octet-stream", data)
		if bytes.Contains(data, []byte(`"layers":`)) {
			send(t, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", base, repo, digest), string(types.OCIManifestSchema1), data)
		}
	}
	send(t, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", base, repo, tag), string(media), raw)
}

func send(t *testing.T, method, url, media string, data []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", media)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, b)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	f := newFake(t)
	content := tarOf(t, regular("app", "program"))
	amd := f.image("amd64", nil, plainLayer(content))
	arm := f.image("arm64", nil, plainLayer(content))
	index := f.index(arm, amd)
	push(t, server.URL, f, "team/app", "1", f.blobs[amd.Digest.String()], types.OCIManifestSchema1)
	push(t, server.URL, f, "team/app", "multi", index, types.OCIImageIndex)
	push(t, server.URL, f, "team/app", "arm", f.index(arm), types.OCIImageIndex)

	r := NewResolver(ResolverConfig{DockerConfig: t.TempDir()})
	want := functions.Artifact{Digest: amd.Digest.String(), Reference: host + "/team/app", Architecture: "amd64", Size: int64(len(content))}
	for _, ref := range []string{host + "/team/app:1", host + "/team/app:multi", host + "/team/app@" + digestOf(index)} {
		got, err := r.Resolve(t.Context(), ref, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		want.Name = ref
		if got != want {
			t.Errorf("%s: got %+v", ref, got)
		}
	}
	for ref, c := range map[string]struct {
		code  fault.Code
		words string
	}{
		"/team/app:2":                      {fault.CodeNotFound, "does not have"},
		"/nowhere":                         {fault.CodeNotFound, "check the name"},
		"/team/app:arm":                    {fault.CodeInvalidArtifact, "no image for linux/amd64, only for linux/arm64"},
		"/team/app@" + arm.Digest.String(): {fault.CodeInvalidArtifact, "the image is for linux/arm64"},
		"/team/app@sha256:" + strings.Repeat("0", 64): {fault.CodeNotFound, "does not have"},
		"/TEAM": {fault.CodeInvalidSpec, "no image reference"},
	} {
		_, err := r.Resolve(t.Context(), host+ref, "amd64")
		wantFault(t, err, c.code, c.words)
	}
}

func TestResolveCredentials(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	amd := f.image("amd64", nil, plainLayer(tarOf(t, regular("app", "program"))))
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := httptest.NewServer(inner)
	t.Cleanup(open.Close)
	push(t, open.URL, f, "private", "latest", f.blobs[amd.Digest.String()], types.OCIManifestSchema1)
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "someone" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(guarded.Close)
	host := strings.TrimPrefix(guarded.URL, "http://")
	config := func(password string) string {
		auth := base64.StdEncoding.EncodeToString([]byte("someone:" + password))
		return writeFile(t, filepath.Join(t.TempDir(), "config.json"), []byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)))
	}
	good := config("secret")
	for _, path := range []string{good, filepath.Dir(good)} {
		if _, err := NewResolver(ResolverConfig{DockerConfig: path}).Resolve(t.Context(), host+"/private", "amd64"); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{config("wrong"), t.TempDir(), filepath.Join(t.TempDir(), "none.json")} {
		_, err := NewResolver(ResolverConfig{DockerConfig: path}).Resolve(t.Context(), host+"/private", "amd64")
		wantFault(t, err, fault.CodeDenied, "docker login "+host)
	}
	broken := writeFile(t, filepath.Join(t.TempDir(), "config.json"), []byte("{"))
	_, err := NewResolver(ResolverConfig{DockerConfig: broken}).Resolve(t.Context(), host+"/private", "amd64")
	wantFault(t, err, fault.CodeUnavailable, broken, "--docker-config")
}

// A docker configuration of the server's own user that is of no use is told from a registry that does not answer.
func TestResolveWithABadDockerConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	for _, text := range []string{"{", `{"credsStore":"there-is-none"}`} {
		writeFile(t, filepath.Join(dir, "config.json"), []byte(text))
		_, err := NewResolver(ResolverConfig{}).Resolve(t.Context(), "127.0.0.1:1/app", "amd64")
		wantFault(t, err, fault.CodeUnavailable, "docker configuration", "--docker-config")
	}
}

func TestResolveWhenTheRegistryFails(t *testing.T) {
	t.Parallel()
	nobody, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}
	r := NewResolver(ResolverConfig{DockerConfig: t.TempDir(), Timeout: 20 * time.Second})
	_, err = r.Resolve(t.Context(), nobody+"/x", "amd64")
	wantFault(t, err, fault.CodeUnavailable, "was not reached")

	answer := func(handler http.HandlerFunc) string {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://") + "/x"
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	manifest := func(media types.MediaType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Content-Type", string(media))
			_, _ = io.WriteString(w, body)
		}
	}
	amd := newFake(t).image("amd64", nil, plainLayer(tarOf(t, regular("app", "x"))))
	foreign, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: "application/x", Digest: amd.Digest}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		code    fault.Code
		words   string
	}{
		"forbidden":      {status(http.StatusForbidden), fault.CodeDenied, "refuses access"},
		"broken":         {status(http.StatusNotImplemented), fault.CodeUnavailable, "failed"},
		"no json":        {manifest(types.OCIManifestSchema1, "hello"), fault.CodeInvalidArtifact, "not readable"},
		"a web page":     {manifest("text/html", "<html>"), fault.CodeInvalidArtifact, "no container image"},
		"another thing":  {manifest(types.OCIManifestSchema1, string(foreign)), fault.CodeInvalidArtifact, "not a container image"},
		"schema 1":       {manifest(types.DockerManifestSchema1, "{}"), fault.CodeInvalidArtifact, "schema 1"},
		"an empty index": {manifest(types.OCIImageIndex, "{}"), fault.CodeInvalidArtifact, "no image for linux/amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := r.Resolve(t.Context(), answer(c.handler), "amd64")
			wantFault(t, err, c.code, c.words)
		})
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		slow := NewResolver(ResolverConfig{DockerConfig: t.TempDir(), Timeout: 200 * time.Millisecond})
		_, err := slow.Resolve(t.Context(), answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "amd64")
		wantFault(t, err, fault.CodeUnavailable, "did not answer in time")
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		_, err := r.Resolve(ctx, answer(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }), "amd64")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// Credentials never travel in the clear: plain HTTP goes to loopback only.
func TestPlainHTTPOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	var asked []string
	transport := &loopbackHTTP{next: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		return nil, errors.New("no network in this test")
	})}
	for url, allowed := range map[string]bool{
		"http://127.0.0.1:5000/v2/": true, "http://localhost:5000/v2/": true, "http://[::1]:5000/v2/": true, "https://registry.example/v2/": true,
		"http://registry.example/v2/": false, "http://10.0.0.1/v2/": false, "http://localhost.example/v2/": false, "http://127.0.0.1.example/": false,
	} {
		asked = nil
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = transport.RoundTrip(r)
		var plain *plainHTTPError
		if refused := errors.As(err, &plain); refused == allowed || (len(asked) == 1) != allowed {
			t.Errorf("%s: %v, asked %v", url, err, asked)
		}
	}
	if host := name.DefaultRegistry; isLoopback(host) {
		t.Error(host)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
