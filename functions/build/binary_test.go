package build

import (
	"archive/tar"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"encoding/json"

	"github.com/tatami-faas/tatami/internal/fault"
)

// program writes a small ELF file: a header and program headers of the types, with data behind them.
func program(change func(h *elf.Header64), data string, types ...elf.ProgType) []byte {
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: 0x400000, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(types)),
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	if change != nil {
		change(&h)
	}
	var out []byte
	out, err := binary.Append(out, binary.LittleEndian, h)
	if err != nil {
		panic(err)
	}
	at := uint64(64 + 56*len(types))
	for _, t := range types {
		out, err = binary.Append(out, binary.LittleEndian, elf.Prog64{Type: uint32(t), Off: at, Filesz: uint64(len(data)), Memsz: uint64(len(data))})
		if err != nil {
			panic(err)
		}
	}
	return append(out, data...)
}

func TestBinary(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "server"), program(nil, "code", elf.PT_LOAD))
	image, err := Build(t.Context(), Request{Path: path, Options: amd64()})
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if image.Kind != KindBinary || image.Name != path {
		t.Errorf("kind %s, name %s", image.Kind, image.Name)
	}
	verify(t, image)
	checkSingle(t, image, "code")

	// The same content elsewhere, with another mode and time, is the same image.
	again, err := Binary(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "other"), program(nil, "code", elf.PT_LOAD)), amd64())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Digest != image.Digest {
		t.Error("the digest is not reproducible")
	}
}

// checkSingle looks into an image of one binary, which ends with the words.
func checkSingle(t *testing.T, image *Image, end string) {
	t.Helper()
	read := func(digest string) io.ReadCloser {
		b, ok := image.Blob(digest)
		if !ok {
			t.Fatalf("no blob %s", digest)
		}
		r, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var m v1.Manifest
	if err := json.Unmarshal(image.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != 1 {
		t.Fatalf("%d layers", len(m.Layers))
	}
	var c v1.ConfigFile
	r := read(m.Config.Digest.String())
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532" || !slices.Equal(c.Config.Entrypoint, []string{"/function"}) || c.OS != "linux" || !c.Created.Equal(c.Created.UTC()) || c.Created.Unix() != 0 {
		t.Errorf("configuration %+v", c)
	}
	l := read(m.Layers[0].Digest.String())
	defer l.Close()
	z, err := gzip.NewReader(l)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.ModTime.Unix() != 0 {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		if h.Name == "function" {
			body, err := io.ReadAll(in)
			if err != nil || !strings.HasSuffix(string(body), end) || h.Uid != 65532 || h.Mode != 0o555 {
				t.Errorf("the binary: %+v, %v", h, err)
			}
		}
	}
	if !slices.Contains(names, "function") || !slices.Contains(names, "tmp/") {
		t.Errorf("entries %v", names)
	}
}

func TestBadBinaries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data  []byte
		words []string
	}{
		"dynamic":          {program(nil, "/lib64/ld-linux-x86-64.so.2\x00", elf.PT_LOAD, elf.PT_INTERP), []string{"dynamically linked", "/lib64/ld-linux-x86-64.so.2", "CGO_ENABLED=0"}},
		"interpreter lies": {program(nil, "\x1b[2J\x00", elf.PT_INTERP), []string{`\x1b[2J`}},
		"arm64":            {program(func(h *elf.Header64) { h.Machine = uint16(elf.EM_AARCH64) }, "", elf.PT_LOAD), []string{"built for arm64, the nodes are amd64", "GOARCH=amd64"}},
		"a rare machine":   {program(func(h *elf.Header64) { h.Machine = uint16(elf.EM_SPARCV9) }, "", elf.PT_LOAD), []string{"SPARCV9"}},
		"object":           {program(func(h *elf.Header64) { h.Type = uint16(elf.ET_REL) }, "", elf.PT_LOAD), []string{"object file"}},
		"core":             {program(func(h *elf.Header64) { h.Type = uint16(elf.ET_CORE) }, "", elf.PT_LOAD), []string{"no program"}},
		"library":          {program(func(h *elf.Header64) { h.Type, h.Entry = uint16(elf.ET_DYN), 0 }, "", elf.PT_LOAD), []string{"library"}},
		"freebsd":          {program(func(h *elf.Header64) { h.Ident[elf.EI_OSABI] = byte(elf.ELFOSABI_FREEBSD) }, "", elf.PT_LOAD), []string{"FREEBSD"}},
		"cut off":          {program(nil, "", elf.PT_LOAD)[:40], []string{"no Linux binary"}},
		"damaged":          {program(func(h *elf.Header64) { h.Ident[elf.EI_CLASS] = 9 }, "", elf.PT_LOAD), []string{"no Linux binary"}},
		"headers outside":  {program(func(h *elf.Header64) { h.Phoff = 1 << 40 }, "", elf.PT_LOAD), []string{"Linux binary"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Build(t.Context(), Request{Path: writeFile(t, filepath.Join(t.TempDir(), "server"), c.data), Options: amd64()})
			wantFault(t, err, fault.CodeInvalidArtifact, c.words...)
			if fault.From(err).Hint == "" && name != "object" && name != "core" && name != "library" && name != "freebsd" {
				t.Error("no next step")
			}
		})
	}
	o := amd64()
	o.MaxUnpacked = 10
	_, err := Binary(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "server"), program(nil, "", elf.PT_LOAD)), o)
	wantFault(t, err, fault.CodeInvalidArtifact, "at most 10")
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		path  string
		kind  Kind
		words []string
	}{
		"go module":       {files: map[string]string{"go.mod": "module x", "cmd/x/main.go": "package main"}, kind: KindGo},
		"go files":        {files: map[string]string{"main.go": "package main"}, kind: KindGo},
		"layout":          {files: map[string]string{"oci-layout": "{}", "index.json": "{}"}, kind: KindLayout},
		"older layout":    {files: map[string]string{"index.json": "{}", "blobs/sha256/x": ""}, kind: KindLayout},
		"glob signs":      {files: map[string]string{"[a]*/main.go": "package main"}, path: "[a]*", kind: KindGo},
		"nothing":         {files: map[string]string{"notes.txt": ""}, words: []string{"nothing that can be deployed"}},
		"node":            {files: map[string]string{"package.json": "{}"}, words: []string{"package.json", "docker save"}},
		"dockerfile":      {files: map[string]string{"Dockerfile": "FROM x"}, words: []string{"Dockerfile", "docker save"}},
		"not there":       {path: "nowhere", words: []string{"does not exist", "image"}},
		"an empty file":   {files: map[string]string{"x": ""}, path: "x", words: []string{"is empty"}},
		"a script":        {files: map[string]string{"x.sh": "#!/bin/sh\n"}, path: "x.sh", words: []string{"script"}},
		"a go file":       {files: map[string]string{"main.go": "package main"}, path: "main.go", words: []string{"one Go file", "name the directory"}},
		"a windows file":  {files: map[string]string{"x.exe": "MZ\x90"}, path: "x.exe", words: []string{"Windows", "GOOS=linux"}},
		"a macos file":    {files: map[string]string{"x": "\xcf\xfa\xed\xfe"}, path: "x", words: []string{"macOS", "GOOS=linux"}},
		"a go library":    {files: map[string]string{"x.a": "!<arch>\n"}, path: "x.a", words: []string{"library archive"}},
		"something else":  {files: map[string]string{"x": "hello"}, path: "x", words: []string{"neither a Linux binary nor a tar"}},
		"a gzipped file":  {files: map[string]string{"x": "\x1f\x8b\x08"}, path: "x", kind: KindArchive},
		"a file as a dir": {files: map[string]string{"x": "y"}, path: "x/y", words: []string{"x/y"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for f, text := range c.files {
				writeFile(t, filepath.Join(dir, f), []byte(text))
			}
			kind, err := Detect(filepath.Join(dir, c.path))
			if c.kind != "" {
				if err != nil || kind != c.kind {
					t.Fatalf("got %s, %v", kind, err)
				}
				return
			}
			code := fault.CodeInvalidArtifact
			if name == "not there" {
				code = fault.CodeNotFound
			}
			wantFault(t, err, code, c.words...)
		})
	}
	_, err := Detect(os.DevNull)
	wantFault(t, err, fault.CodeInvalidArtifact, "neither a directory nor a regular file")
}
