package build

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
)

const mainGo = "package main\n\nimport \"os\"\n\nfunc main() { os.Exit(len(os.Args)) }\n"

func source(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		writeFile(t, filepath.Join(dir, name), []byte(text))
	}
	return dir
}

// The same source in two directories gives the same digest, and the binary tells nothing of where it was built.
func TestGoSourceIsReproducible(t *testing.T) {
	t.Parallel()
	var digests []string
	for _, arch := range []string{"amd64", "amd64", "arm64"} {
		dir := source(t, map[string]string{"go.mod": "module example\n\ngo 1.22\n", "main.go": mainGo})
		image, err := GoSource(t.Context(), dir, Options{Architecture: arch})
		if err != nil {
			t.Fatal(err, fault.From(err))
		}
		defer image.Close()
		if image.Architecture != arch || image.Kind != KindGo || image.Name != dir {
			t.Errorf("got %+v", image.Artifact())
		}
		verify(t, image)
		digests = append(digests, image.Digest)

		r, err := image.Blobs[1].Open()
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(dir)) {
			t.Errorf("the binary names %s", dir)
		}
		info, err := buildinfo.Read(bytes.NewReader(data[bytes.Index(data, []byte("\x7fELF")):]))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": arch, "-trimpath": "true"}
		for _, s := range info.Settings {
			if w, ok := want[s.Key]; ok && w != s.Value {
				t.Errorf("%s is %s", s.Key, s.Value)
			}
			delete(want, s.Key)
		}
		if len(want) > 0 {
			t.Errorf("not in the build's settings: %v", want)
		}
	}
	if digests[0] != digests[1] {
		t.Error("the digest is not reproducible")
	}
	if digests[0] == digests[2] {
		t.Error("another architecture has the same digest")
	}
}

// A function may be a package below the module's root, and its directory may lie below the go.mod.
func TestGoSourceFindsItsPackage(t *testing.T) {
	t.Parallel()
	dir := source(t, map[string]string{
		"go.mod": "module example\n\ngo 1.22\n", "lib.go": "package example\n\nconst Code = 3\n",
		"cmd/fn/main.go": "package main\n\nimport (\n\t\"os\"\n\n\t\"example\"\n)\n\nfunc main() { os.Exit(example.Code) }\n",
	})
	file := spec.New("fn")
	file.Path, file.Handler = filepath.Join(dir, spec.FileName), "cmd/fn"
	one, err := Build(t.Context(), Request{File: file, Options: amd64()})
	if err != nil {
		t.Fatal(err, fault.From(err).Details)
	}
	defer one.Close()
	two, err := Build(t.Context(), Request{Path: filepath.Join(dir, "cmd", "fn"), Options: amd64()})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	if one.Digest != two.Digest {
		t.Error("the same package gives two digests")
	}
}

func TestGoSourceErrors(t *testing.T) {
	t.Parallel()
	const mod = "module example\n\ngo 1.22\n"
	for name, c := range map[string]struct {
		files   map[string]string
		handler string
		code    fault.Code
		words   []string
	}{
		"does not compile":  {map[string]string{"go.mod": mod, "main.go": "package main\n\nfunc main() { undefined() }\n"}, "", fault.CodeInvalidArtifact, []string{"does not compile", "main.go:3:15: undefined: undefined", "correct the code"}},
		"no module":         {map[string]string{"main.go": mainGo}, "", fault.CodeInvalidArtifact, []string{"go.mod is missing", "go mod init"}},
		"no main package":   {map[string]string{"go.mod": mod, "lib.go": "package lib\n"}, "", fault.CodeInvalidArtifact, []string{"no main package", "handler"}},
		"no func main":      {map[string]string{"go.mod": mod, "main.go": "package main\n"}, "", fault.CodeInvalidArtifact, []string{"function main is undeclared", "needs func main"}},
		"no go files":       {map[string]string{"go.mod": mod, "cmd/x/main.go": mainGo}, "", fault.CodeInvalidArtifact, []string{"no Go files", "handler"}},
		"missing module":    {map[string]string{"go.mod": mod, "main.go": "package main\n\nimport _ \"example.com/nowhere\"\n\nfunc main() {}\n"}, "", fault.CodeInvalidArtifact, []string{"example.com/nowhere", "go mod tidy"}},
		"newer go":          {map[string]string{"go.mod": "module example\n\ngo 1.999\n", "main.go": mainGo}, "", fault.CodeInvalidArtifact, []string{"1.999", "newer Go"}},
		"cgo":               {map[string]string{"go.mod": mod, "main.go": "package main\n\nimport \"C\"\n\nfunc main() {}\n"}, "", fault.CodeInvalidArtifact, []string{"build constraints exclude", "CGO_ENABLED=0"}},
		"handler not there": {map[string]string{"go.mod": mod, "main.go": mainGo}, "cmd/x", fault.CodeInvalidSpec, []string{"handler cmd/x is no directory"}},
		"handler outside":   {map[string]string{"go.mod": mod, "main.go": mainGo}, "../x", fault.CodeInvalidSpec, []string{"outside"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			// A newer toolchain is not to be downloaded here.
			local := writeScript(t, filepath.Join(t.TempDir(), "go.sh"), "#!/bin/sh\nGOTOOLCHAIN=local GOFLAGS= exec go \"$@\"\n")
			_, err := GoSource(t.Context(), source(t, c.files), Options{Architecture: "amd64", Handler: c.handler, TempDir: temp, Go: local})
			wantFault(t, err, c.code, c.words...)
			if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	dir := source(t, map[string]string{"go.mod": mod, "main.go": mainGo})
	_, err := GoSource(t.Context(), dir, Options{Architecture: "amd64", Go: filepath.Join(dir, "no-such-go")})
	wantFault(t, err, fault.CodeInvalidRequest, "no Go toolchain", "install Go")
	_, err = GoSource(t.Context(), dir, Options{Architecture: "pdp11"})
	wantFault(t, err, fault.CodeInvalidArtifact, "pdp11")
}

func TestGoSourceStops(t *testing.T) {
	t.Parallel()
	// A Go command that waits until it is told to stop.
	dir := source(t, map[string]string{"go.mod": "module example\n", "main.go": mainGo})
	ready := filepath.Join(dir, "ready")
	command := writeScript(t, filepath.Join(dir, "go.sh"), "#!/bin/sh\ntrap 'exit 1' INT\n: > "+ready+"\nwhile :; do sleep 0.02; done\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for range 1000 {
			if found, _ := filepath.Glob(ready); len(found) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	if _, err := GoSource(ctx, dir, Options{Architecture: "amd64", Go: command}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCompilerOutputIsBounded(t *testing.T) {
	t.Parallel()
	dir := source(t, map[string]string{"go.mod": "module example\n", "main.go": mainGo})
	command := writeScript(t, filepath.Join(dir, "go.sh"), "#!/bin/sh\ni=0\nwhile [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done\nexit 1\n")
	_, err := GoSource(t.Context(), dir, Options{Architecture: "amd64", Go: command})
	wantFault(t, err, fault.CodeInvalidArtifact, "line 0", "4940 more lines")
	if n := len(strings.Join(fault.From(err).Details, "\n")); n > 4096 {
		t.Errorf("%d bytes", n)
	}
}
