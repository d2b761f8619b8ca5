package templates

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestWriteMakesAFunctionThatParses(t *testing.T) {
	t.Parallel()
	for _, lang := range Langs() {
		for _, name := range []string{"greeter", "net", "a.team"} {
			t.Run(lang+"/"+name, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "deep", "fn")
				files, err := Write(dir, name, lang)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(files, spec.FileName) || !slices.Contains(files, "README.md") {
					t.Fatalf("wrote %v", files)
				}
				f, err := spec.Read(dir)
				if err != nil {
					t.Fatal(err)
				}
				if f.Ref().String() != name {
					t.Errorf("the file names %s instead of %s", f.Ref(), name)
				}
				if lang == "go" {
					if _, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "main.go"), nil, parser.AllErrors); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// A name that is also that of a standard library package must build all the same.
func TestGoStarterBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Write(dir, "net", "go"); err != nil {
		t.Fatal(err)
	}
	f, err := spec.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	image, err := build.Build(t.Context(), build.Request{File: f})
	if err != nil {
		t.Fatalf("%v\n%v", err, fault.From(err))
	}
	defer image.Close()
	if image.Kind != build.KindGo || image.Size == 0 {
		t.Errorf("built %+v", image.Artifact())
	}
}

func TestWriteNeverOverwrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := filepath.Join(dir, "main.go")
	if err := os.WriteFile(kept, []byte("package mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Write(dir, "hello", "go")
	if !fault.Is(err, fault.CodeConflict) {
		t.Fatalf("got %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("files were written beside the one that was there: %v", entries)
	}
	if got, _ := os.ReadFile(kept); string(got) != "package mine\n" {
		t.Errorf("it was overwritten: %q", got)
	}
}

func TestWriteRefusesBadInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, lang string
	}{{"Hello", "go"}, {"", "go"}, {"../x", "go"}, {"a.b.c", "go"}, {"hello", "cobol"}, {"hello", ""}, {"hello", "../go"}} {
		dir := filepath.Join(t.TempDir(), "fn")
		if _, err := Write(dir, c.name, c.lang); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("Write(%q, %q): got %v", c.name, c.lang, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("Write(%q, %q) made the directory", c.name, c.lang)
		}
	}
}
