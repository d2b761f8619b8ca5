package sandboxtest

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func (s *suite) prepare(t *testing.T) {
	t.Run("idempotent", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				img, err := s.driver.Prepare(t.Context(), s.artifact)
				if err != nil || img.Digest != s.artifact.Digest || !slices.Equal(img.Entrypoint, []string{"/testfn"}) || img.Size <= 0 {
					t.Errorf("%+v, %v", img, err)
				}
			})
		}
		wg.Wait()
		if !slices.Contains(s.driver.Prepared(), s.artifact.Digest) {
			t.Error("it is not among the prepared")
		}
	})
	refused := func(name string, img v1.Image, spoil func(functions.Artifact) functions.Artifact) {
		t.Run(name, func(t *testing.T) {
			a := s.Blobs.Put(t, img)
			if spoil != nil {
				a = spoil(a)
			}
			before := s.driver.Prepared()
			_, err := s.driver.Prepare(t.Context(), a)
			if !fault.Is(err, fault.CodeInvalidArtifact) {
				t.Errorf("not refused as an invalid artifact: %v", err)
			}
			if after := s.driver.Prepared(); !slices.Equal(before, after) {
				t.Errorf("it left %v prepared", after)
			}
		})
	}
	cfg := v1.Config{Entrypoint: []string{"/testfn"}}
	file := func(body string) v1.Layer { return Layer(t, Entry{Name: "file", Body: []byte(body), Mode: 0o644}) }
	spoilt := func(digest v1.Hash, err error, a functions.Artifact) functions.Artifact {
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(s.Blobs.path(digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 0x20
		if err := os.WriteFile(s.Blobs.path(digest.String()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return a
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	refused("another architecture", Image(t, cfg, other, file("a")), nil)
	layer := file(strings.Repeat("spoilt layer ", 1000))
	refused("layer's digest", Image(t, cfg, runtime.GOARCH, layer), func(a functions.Artifact) functions.Artifact {
		h, err := layer.Digest()
		return spoilt(h, err, a)
	})
	img := Image(t, cfg, runtime.GOARCH, file("b"))
	refused("configuration's digest", img, func(a functions.Artifact) functions.Artifact {
		h, err := img.ConfigName()
		return spoilt(h, err, a)
	})
	img2 := Image(t, cfg, runtime.GOARCH, file("c"))
	refused("manifest's digest", img2, func(a functions.Artifact) functions.Artifact {
		h, err := img2.Digest()
		return spoilt(h, err, a)
	})
	gone := file("d")
	refused("missing layer", Image(t, cfg, runtime.GOARCH, gone), func(a functions.Artifact) functions.Artifact {
		h, err := gone.Digest()
		if err == nil {
			err = os.Remove(s.Blobs.path(h.String()))
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
	refused("a path that escapes", Image(t, cfg, runtime.GOARCH, Layer(t, Entry{Name: "../../escaped", Body: []byte("x"), Mode: 0o644})), nil)
	refused("unknown user", Image(t, v1.Config{Entrypoint: cfg.Entrypoint, User: "nobody-knows"}, runtime.GOARCH, file("e")), nil)
	refused("no such artifact", img, func(a functions.Artifact) functions.Artifact {
		a.Digest = "sha256:" + strings.Repeat("0", 64)
		return a
	})
	t.Run("not prepared", func(t *testing.T) {
		spec := s.spec()
		spec.Artifact.Digest = "sha256:" + strings.Repeat("1", 64)
		if _, err := s.driver.Create(t.Context(), spec); !fault.Is(err, fault.CodeInvalidArtifact) {
			t.Errorf("%v", err)
		}
		if s.find(t, spec.ID) != nil {
			t.Error("it is listed")
		}
	})
	t.Run("forget", func(t *testing.T) {
		a := s.Blobs.Put(t, Image(t, cfg, runtime.GOARCH, s.fn, file("to be forgotten")))
		spec := s.spec()
		spec.Artifact = a
		c := s.create(t, spec)
		if err := s.driver.Forget(t.Context(), a.Digest); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(s.driver.Prepared(), a.Digest) {
			t.Error("still prepared")
		}
		if got := c.get("/read", "path", "/file"); got != "to be forgotten" {
			t.Errorf("the running sandbox reads %q", got)
		}
		if _, err := s.driver.Prepare(t.Context(), a); err != nil {
			t.Errorf("prepare again: %v", err)
		}
	})
}

func (s *suite) life(t *testing.T) {
	t.Run("serves", func(t *testing.T) {
		spec := s.spec("BOTH=function", "OWN=1")
		c := s.create(t, spec)
		if got := c.get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
		info := c.Info()
		if info.ID != spec.ID || string(info.Record) != "a record" || info.PID <= 1 || info.Create <= 0 || info.Start <= 0 || info.Created.IsZero() {
			t.Errorf("%+v", info)
		}
		v := c.sees()
		for _, env := range []string{"FROM_IMAGE=yes", "BOTH=function", "OWN=1", "PORT=8080"} {
			if !v.has(env) {
				t.Errorf("%s is missing in %q", env, v.Env)
			}
		}
		if v.UID != s.user() || v.GID != s.user() || v.PID != 1 || v.Hostname != string(spec.ID) || v.Cwd != "/" {
			t.Errorf("%+v", v)
		}
		if _, err := s.driver.Create(t.Context(), spec); !fault.Is(err, fault.CodeConflict) {
			t.Errorf("a second one with its id: %v", err)
		}
		if err := c.Stop(t.Context(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if e := exits(t, c); e.OOM {
			t.Errorf("%+v", e)
		}
		if err := c.Stop(t.Context(), time.Second); err != nil {
			t.Errorf("stop again: %v", err)
		}
		if _, err := c.Dial(t.Context()); err == nil {
			t.Error("it accepts connections after its end")
		}
	})
	t.Run("as the image says", func(t *testing.T) {
		users := Layer(t,
			Entry{Name: "etc/passwd", Link: "/users/passwd", Mode: 0o777},
			Entry{Name: "users/passwd", Body: []byte("root:x:0:0::/:/bin/sh\nworker:x:1234:1235::/srv:/bin/sh\n"), Mode: 0o644},
			Entry{Name: "etc/group", Body: []byte("staff:x:77:worker\n"), Mode: 0o644},
			Entry{Name: "srv/", Mode: 0o755})
		spec := s.spec()
		spec.Artifact = s.Blobs.Put(t, Image(t, v1.Config{Cmd: []string{"/testfn"}, User: "worker", WorkingDir: "/srv"}, runtime.GOARCH, s.fn, users))
		spec.Command, spec.Hostname = []string{"/testfn", "serve"}, "box"
		v := s.create(t, spec).sees()
		if v.UID != 1234 || v.GID != 1235 || !slices.Contains(v.Groups, 77) || v.Cwd != "/srv" || v.Hostname != "box" || !slices.Equal(v.Args, spec.Command) {
			t.Errorf("%+v", v)
		}
	})
	t.Run("links do not lead out", func(t *testing.T) {
		// The link to the node's own file would know the user root's name only by the image's; "sync" is in every node's file.
		links := Layer(t, Entry{Name: "etc/passwd", Link: "../../../../../../../../etc/passwd", Mode: 0o777})
		a := s.Blobs.Put(t, Image(t, v1.Config{Entrypoint: []string{"/testfn"}, User: "sync"}, runtime.GOARCH, links))
		if _, err := s.driver.Prepare(t.Context(), a); !fault.Is(err, fault.CodeInvalidArtifact) {
			t.Errorf("%v", err)
		}
	})
	t.Run("port 80", func(t *testing.T) {
		spec := s.spec("PORT=80")
		spec.Port = 80
		if got := s.create(t, spec).get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("IPv6 only", func(t *testing.T) {
		if got := s.create(t, s.spec("ONLY_IPV6=1")).get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("ends by itself", func(t *testing.T) {
		sb := s.start(t, s.spec("EXIT=7"))
		if e := exits(t, sb); e != (functions.Exit{Code: 7}) {
			t.Errorf("%+v", e)
		}
		if s.find(t, sb.Info().ID) == nil {
			t.Error("its remains are not listed")
		}
		if out, err := os.ReadFile(sb.Info().Stdout); err != nil || !strings.Contains(string(out), "leaving with 7") {
			t.Errorf("its output: %q, %v", out, err)
		}
	})
	t.Run("cannot be started", func(t *testing.T) {
		spec := s.spec()
		spec.Command = []string{"/no-such-program"}
		_, err := s.driver.Create(t.Context(), spec)
		if !fault.Is(err, fault.CodeFunctionNotReady) || !strings.Contains(err.Error(), "no-such-program") {
			t.Errorf("%v", err)
		}
		if s.find(t, spec.ID) != nil {
			t.Error("it is listed")
		}
	})
	t.Run("SIGTERM ignored", func(t *testing.T) {
		c := s.create(t, s.spec("IGNORE_TERM=1"))
		begun := time.Now()
		if err := c.Stop(t.Context(), 300*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 300*time.Millisecond {
			t.Errorf("killed after %s, before the grace ended", took)
		}
		if e := exits(t, c); e != (functions.Exit{Code: 137}) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("stop is interrupted", func(t *testing.T) {
		c := s.create(t, s.spec("IGNORE_TERM=1"))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := c.Stop(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
		if s.find(t, c.Info().ID) != nil {
			t.Error("List did not go on with it")
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				sb, err := s.driver.Create(t.Context(), s.spec())
				if err != nil {
					t.Error(err)
					return
				}
				if err := sb.Stop(t.Context(), 0); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("dial gives up", func(t *testing.T) {
		sb := s.start(t, s.spec("PORT=9999"))
		if conn, err := sb.Dial(t.Context()); err == nil {
			conn.Close()
			t.Error("connected to a port on which nobody listens")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sb.Dial(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	t.Run("listening", func(t *testing.T) {
		if err := s.start(t, s.spec()).AwaitListening(t.Context()); err != nil {
			t.Errorf("a function that listens: %v", err)
		}
		deaf := s.start(t, s.spec("PORT=9999"))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := deaf.AwaitListening(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a function that listens elsewhere: %v", err)
		}
		spec := s.spec()
		spec.Command = []string{"/testfn", "exit", "3"}
		if err := s.start(t, spec).AwaitListening(t.Context()); err == nil {
			t.Error("a process that has ended listens")
		}
	})
}
