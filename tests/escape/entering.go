//go:build linux

package escape

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

func sandboxLayer(t *testing.T, name, text string) v1.Layer {
	t.Helper()
	return sandboxtest.Layer(t, sandboxtest.Entry{Name: name, Body: []byte(text), Mode: 0o644})
}

func (s *suite) imageWith(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	return sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/hostile"}}, runtime.GOARCH, append([]v1.Layer{s.layer}, layers...)...)
}

const hugePages = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

// entering: whoever comes into the sandbox from outside brings nothing that the function could take.
func (s *suite) entering(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		p := s.hold(t, s.spec())
		p.try(t, "watch-begin", "")
		const times = 8
		for range times {
			var out bytes.Buffer
			if code, err := p.Exec(t.Context(), []string{"/hostile", "ids"}, nil, &out, &out); err != nil || code != 0 {
				t.Fatalf("exec: %d, %v: %s", code, err, &out)
			}
		}
		lines := strings.Split(p.try(t, "watch-end", "").Detail, "\n")
		n, err := strconv.Atoi(strings.TrimPrefix(lines[0], "processes "))
		if err != nil || n < times/2 {
			t.Errorf("the watch missed the processes: %q", lines)
		}
		for _, l := range lines[1:] {
			kind, to, _ := strings.Cut(l, " ")
			switch {
			case kind == "fd" && to == hugePages:
				// The Go runtime of the program itself reads it at its start.
			case kind == "exe" && to == "/hostile", (kind == "cwd" || kind == "root") && to == "/", kind == "fd" && !leadsOut(to):
			default:
				t.Errorf("the function got of one who entered: %s", l)
			}
		}
	})

	// A working directory, or a program, among what the one that makes the sandbox has open.
	t.Run("working directory", func(t *testing.T) {
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte("of the node"), 0o644); err != nil {
			t.Fatal(err)
		}
		dirs := []string{"/proc/1/root", "/proc/self/root/proc/1/cwd"}
		for fd := 3; fd < 12; fd++ {
			dirs = append(dirs, "/proc/self/fd/"+strconv.Itoa(fd))
		}
		for _, dir := range dirs {
			img := sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/hostile"}, WorkingDir: dir}, runtime.GOARCH, s.layer)
			spec := s.spec()
			spec.Artifact = s.Blobs.Put(t, img)
			p, err := s.start(t, spec)
			if err != nil {
				if !fault.Is(err, fault.CodeFunctionNotReady) {
					t.Errorf("%s: %v", dir, err)
				}
				continue
			}
			p = s.serve(t, p)
			for _, way := range []string{strings.Repeat("../", 30) + secret, "/proc/self/cwd" + secret, "/proc/self/cwd/" + strings.Repeat("../", 30) + secret} {
				if got := p.try(t, "read", "path="+url.QueryEscape(way)); got.Errno != "ENOENT" {
					t.Errorf("in %s: %s: %+v", dir, way, got)
				}
			}
		}
	})
	t.Run("the maker's program", func(t *testing.T) {
		for _, command := range [][]string{{"/proc/self/exe"}, {"/proc/self/exe", "sleep"}, {"/proc/1/exe"}} {
			spec := s.spec()
			spec.Command = command
			p, err := s.start(t, spec)
			if err != nil {
				continue
			}
			// It is a program that finds nothing to do; the function's own code never runs.
			<-p.Done()
			if p.Exit().Code == 0 && len(command) > 1 {
				t.Errorf("%q: %+v", command, p.Exit())
			}
		}
	})
}
