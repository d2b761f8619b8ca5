package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// FileName is how the file is called in a function's directory.
const FileName = "tatami.yaml"

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 256 << 10

// File is what a tatami.yaml says.
type File struct {
	// Path is how the file was called when it was read; for messages, and the directory that Source is relative to.
	Path string
	// Name is the function's name.
	Name string
	// Namespace is empty where the file names none.
	Namespace string
	// Image is an OCI image reference; Source is empty then.
	Image string
	// Source is a source directory, a static binary, an OCI layout directory, or a tar of an image, relative to the file.
	Source string
	// Handler is the Go package below Source that is built; "." is Source itself.
	Handler string
	// Config is complete and valid: defaults are filled in.
	Config functions.Config
	// Triggers are the triggers that the file declares, each with its own fields only: not whose they are.
	Triggers []functions.Trigger
}

// New returns the description of a function of which only the name is known: it is built from its directory with every default.
func New(name string) *File {
	return &File{Name: name, Source: ".", Handler: ".", Config: functions.Config{}.WithDefaults()}
}

// Ref returns the function's full name; the default namespace stands where the file names none.
func (f *File) Ref() functions.Ref {
	ns := f.Namespace
	if ns == "" {
		ns = functions.DefaultNamespace
	}
	return functions.Ref{Namespace: ns, Name: f.Name}
}

// SourcePath returns Source as a path relative to the working directory (or an absolute one), "" where the function is an image.
func (f *File) SourcePath() string {
	if f.Source == "" || filepath.IsAbs(f.Source) {
		return f.Source
	}
	return filepath.Join(filepath.Dir(f.Path), f.Source)
}

// Read parses the file at path. For a directory it reads the tatami.yaml in it.
func Read(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, FileName)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.CodeNotFound, "%s does not exist", path).
			WithHint("run `tatami init` to write one, or name the directory that holds it")
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "read %s", path)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.CodeInvalidSpec, "%s is not a regular file", path)
	}
	if info.Size() > MaxSize {
		return nil, tooLarge(path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "read %s", path)
	}
	return Parse(path, data)
}

func tooLarge(name string, size int64) error {
	return fault.New(fault.CodeInvalidSpec, "%s has %d bytes; a %s has at most %d", name, size, FileName, MaxSize).
		WithHint("is this the right file? A description of a function is short")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
