package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Kind is what a path holds.
type Kind string

// The kinds.
const (
	// KindGo is a directory with Go source.
	KindGo Kind = "go source"
	// KindBinary is a file to be run as it is.
	KindBinary Kind = "binary"
	// KindLayout is an OCI layout directory.
	KindLayout Kind = "oci layout"
	// KindArchive is a tar of an OCI layout or of `docker save`, plain or compressed.
	KindArchive Kind = "image archive"
)

// DefaultMaxUnpacked bounds what an image may unpack to, in bytes.
const DefaultMaxUnpacked = 4 * functions.GiB

// Progress tells how far a build is.
type Progress struct {
	// Step is what is being done: "compile", "pack", "unpack", "check".
	Step string
	// Name is what it is done to.
	Name string
	// Done of Total; Total is 0 where nothing can be counted.
	Done, Total int64
}

// Options hold for every way to build. The zero value is usable.
type Options struct {
	// Architecture is GOARCH's name for the nodes'; empty: this machine's.
	Architecture string
	// Handler is the Go package to build below the source directory; empty: the directory itself.
	Handler string
	// Name is what people call the artifact; empty: the path.
	Name string
	// MaxUnpacked bounds what an image may unpack to; 0: DefaultMaxUnpacked.
	MaxUnpacked int64
	// Go is the Go command; empty: `go` on the PATH.
	Go string
	// TempDir is where intermediate files go; empty: the system's.
	TempDir string
	// Progress is called from the goroutine that builds; may be nil.
	Progress func(Progress)
}

func (o Options) withDefaults(path string) Options {
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	if o.Handler == "" {
		o.Handler = "."
	}
	if o.Name == "" {
		o.Name = path
	}
	if o.MaxUnpacked <= 0 {
		o.MaxUnpacked = DefaultMaxUnpacked
	}
	return o
}

func (o Options) progress(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// Request is one build.
type Request struct {
	Options
	// File describes the function; may be nil where Path is given.
	File *spec.File
	// Path is what is built; empty: the File's source.
	Path string
}

// Build builds whatever lies at the path. The caller closes the image. A File that names an image of a registry is refused: the server
// resolves it.
func Build(ctx context.Context, r Request) (*Image, error) {
	path := r.Path
	if r.File != nil {
		if r.File.Image != "" && path == "" {
			return nil, fault.New(fault.CodeInvalidRequest, "%s is an image in a registry; there is nothing to build", r.File.Image)
		}
		if path == "" {
			path = r.File.SourcePath()
		}
		if r.Handler == "" {
			r.Handler = r.File.Handler
		}
	}
	if path == "" {
		path = "."
	}
	kind, err := Detect(path)
	if err != nil {
		return nil, err
	}
	if kind != KindGo && r.Handler != "" && filepath.Clean(r.Handler) != "." {
		return nil, fault.New(fault.CodeInvalidSpec, "handler names a Go package, but %s is no Go source (%s)", path, kind).
			WithField("handler").WithHint("remove handler, or point source at the directory with go.mod")
	}
	image, err := r.build(ctx, kind, path)
	if err != nil {
		return nil, err
	}
	if r.File != nil && len(r.File.Config.Command) == 0 && len(image.Command) == 0 {
		image.Close()
		return nil, fault.New(fault.CodeInvalidArtifact, "%s has neither an entrypoint nor a command", path).WithField("command").
			WithHint("set command in %s, such as command: [\"/app/server\"]", spec.FileName)
	}
	return image, nil
}

func (r Request) build(ctx context.Context, kind Kind, path string) (*Image, error) {
	switch kind {
	case KindGo:
		return GoSource(ctx, path, r.Options)
	case KindBinary:
		return Binary(ctx, path, r.Options)
	case KindLayout:
		return OpenLayout(ctx, path, r.Options)
	default:
		return OpenArchive(ctx, path, r.Options)
	}
}

// Detect tells what lies at a path. It looks at names and first bytes only.
func Detect(path string) (Kind, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.CodeNotFound, "%s does not exist", path).
			WithHint("name a Go source directory, a static Linux binary, an OCI layout or a tar of an image; for an image in a registry set image in %s", spec.FileName)
	case err != nil:
		return "", fault.Wrap(fault.CodeInvalidArtifact, err, "look at %s", path)
	case info.IsDir():
		return detectDir(path)
	case !info.Mode().IsRegular():
		return "", fault.New(fault.CodeInvalidArtifact, "%s is neither a directory nor a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidArtifact, err, "open %s", path)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", fault.Wrap(fault.CodeInvalidArtifact, err, "read %s", path)
	}
	head = head[:n]
	switch {
	case n == 0:
		return "", fault.New(fault.CodeInvalidArtifact, "%s is empty", path)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return KindBinary, nil
	case compressionOf(head) != plainTar, len(head) > 262 && string(head[257:262]) == "ustar":
		return KindArchive, nil
	}
	return "", refuseFile(path, head)
}

// refuseFile says what a file is that cannot be deployed.
func refuseFile(path string, head []byte) error {
	e := fault.New(fault.CodeInvalidArtifact, "%s is neither a Linux binary nor a tar of an image", path).
		WithHint("name a Go source directory, a static Linux binary, an OCI layout or a tar of an image")
	switch {
	case strings.HasSuffix(path, ".go"):
		e.Message = path + " is one Go file; a function is built from its directory"
		e.Hint = "name the directory: " + filepath.Dir(path)
	case bytes.HasPrefix(head, []byte("#!")):
		e.Message = path + " is a script; it needs its interpreter beside it"
		e.Hint = "put both into an image (docker build), save it (docker save -o image.tar) and deploy the tar"
	case bytes.HasPrefix(head, []byte("MZ")):
		e.Message = path + " is a Windows program"
		e.Hint = "build it for Linux: GOOS=linux CGO_ENABLED=0 go build"
	case bytes.HasPrefix(head, []byte("\xcf\xfa\xed\xfe")), bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")), bytes.HasPrefix(head, []byte("\xfe\xed\xfa\xcf")):
		e.Message = path + " is a macOS program"
		e.Hint = "build it for Linux: GOOS=linux CGO_ENABLED=0 go build"
	case bytes.HasPrefix(head, []byte("!<arch>\n")):
		e.Message = path + " is a library archive, not a program"
	}
	return e
}

func detectDir(path string) (Kind, error) {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	if has("oci-layout") || has("index.json") && has("blobs") {
		return KindLayout, nil
	}
	if has("go.mod") {
		return KindGo, nil
	}
	if found, err := filepath.Glob(filepath.Join(escapeGlob(path), "*.go")); err == nil && len(found) > 0 {
		return KindGo, nil
	}
	e := fault.New(fault.CodeInvalidArtifact, "%s holds nothing that can be deployed: no go.mod, no Go files, no OCI layout", path).
		WithHint("set source in %s to a Go source directory, a static Linux binary, an OCI layout or a tar of an image", spec.FileName)
	for _, foreign := range []string{"Dockerfile", "package.json", "requirements.txt", "pyproject.toml", "Cargo.toml", "pom.xml"} {
		if has(foreign) {
			e.Message += " (there is a " + foreign + ")"
			e.Hint = "build an image with your own tool (docker build), save it (docker save -o image.tar) and set source: image.tar"
			break
		}
	}
	return "", e
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
