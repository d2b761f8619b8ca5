package templates

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

//go:embed go static
var starters embed.FS

// suffix marks the embedded files: without it a go.mod would cut its directory out of this module.
const suffix = ".tmpl"

// Langs lists the starters there are.
func Langs() []string { return []string{"go", "static"} }

// Write makes a function of the name in dir, which is made where it is missing, and returns the files written, relative to dir. A file
// that is there already is never overwritten: nothing is written then.
func Write(dir, name, lang string) ([]string, error) {
	if !slices.Contains(Langs(), lang) {
		return nil, fault.New(fault.CodeInvalidRequest, "there is no starter for %q", lang).WithField("lang").
			WithHint("choose one of: %s", strings.Join(Langs(), ", "))
	}
	ref, err := functions.ParseRef(name)
	if err != nil {
		return nil, err
	}
	files, err := render(lang, ref)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, f.name)
		_, err := os.Lstat(filepath.Join(dir, f.name))
		if err == nil {
			return nil, fault.New(fault.CodeConflict, "%s is there already", filepath.Join(dir, f.name)).
				WithHint("choose another directory; nothing was written")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.CodeInvalidRequest, err, "look at %s", filepath.Join(dir, f.name))
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "make %s", dir)
	}
	for i, f := range files {
		if err := create(filepath.Join(dir, f.name), f.data); err != nil {
			// What was written so far is ours: leave the directory as it was found.
			for _, done := range files[:i] {
				_ = os.Remove(filepath.Join(dir, done.name))
			}
			return nil, fault.Wrap(fault.CodeInvalidRequest, err, "write %s", filepath.Join(dir, f.name))
		}
	}
	return names, nil
}

func create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

type file struct {
	name string
	data []byte
}

func render(lang string, ref functions.Ref) ([]file, error) {
	entries, err := starters.ReadDir(lang)
	if err != nil {
		return nil, fmt.Errorf("read the starter: %w", err)
	}
	var out []file
	for _, e := range entries {
		raw, err := starters.ReadFile(path.Join(lang, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the starter: %w", err)
		}
		t, err := template.New(e.Name()).Option("missingkey=error").Parse(string(raw))
		if err != nil {
			return nil, fmt.Errorf("read the starter %s: %w", e.Name(), err)
		}
		var b bytes.Buffer
		data := map[string]string{"Name": ref.Name, "Namespace": ref.Namespace, "Ref": ref.String(), "Module": module(ref.Name)}
		if err := t.Execute(&b, data); err != nil {
			return nil, fmt.Errorf("fill in the starter %s: %w", e.Name(), err)
		}
		out = append(out, file{strings.TrimSuffix(e.Name(), suffix), b.Bytes()})
	}
	return out, nil
}

// module keeps a function's name from being that of a standard library package, which a module path must not be.
func module(name string) string { return "functions/" + name }
