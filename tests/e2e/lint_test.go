//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Each rule of `make lint` can fail: in a tree that breaks each of them once, it says what is expected of every line, and nothing else.
func TestLintRules(t *testing.T) {
	tree, err := txtar.ParseFile("testdata/lint.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := lintTree(t, tree.Files)
	writeFile(t, filepath.Join(dir, "worker/meter/long.go"), "package meter\n\n"+strings.Repeat("//\n", 610))
	out, failed := makeLint(t, dir)
	if !failed {
		t.Fatalf("make lint finds nothing:\n%s", out)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9/]+\.go):(\d+)(?::\d+)?: (.*)$`).FindAllStringSubmatch(out, -1) {
		place := m[1] + ":" + m[2]
		found[place] += m[3] + "\n"
	}
	want := map[string]string{"worker/meter/long.go:612": "file-length-limit"}
	for _, f := range tree.Files {
		for i, line := range strings.Split(string(f.Data), "\n") {
			if _, text, ok := strings.Cut(line, "// want: "); ok {
				want[fmt.Sprintf("%s:%d", f.Name, i+1)] = text
			}
		}
	}
	for place, text := range want {
		if !strings.Contains(found[place], text) {
			t.Errorf("%s: want %q, got %q", place, text, found[place])
		}
	}
	for place, text := range found {
		if want[place] == "" {
			t.Errorf("%s: want nothing, got %q", place, text)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// What `make lint` holds beside the linters: no goroutine in a pure package, no endless test file.
func TestLintFiles(t *testing.T) {
	for _, tc := range []struct{ name, file, text, want string }{
		{"clean", "scheduler/state/fine.go", "package state\n", ""},
		{"goroutine", "scheduler/state/wait.go", "package state\n\n// Wait starts one.\nfunc Wait(f func()) {\n\tgo f()\n}\n", "wait.go:5:\tgo f()"},
		{"select", "scheduler/reconcile/wait.go", "package reconcile\n\n// Wait waits.\nfunc Wait(c chan int) {\n\tselect {\n\tcase <-c:\n\tdefault:\n\t}\n}\n", "wait.go:5:\tselect {"},
		{"test file", "worker/long_test.go", "package worker\n\n" + strings.Repeat("//\n", 810), "worker/long_test.go: 812 lines, more than 800"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := []txtar.File{
				{Name: "go.mod", Data: []byte("module github.com/tatami-faas/tatami\n\ngo 1.26\n")},
				{Name: "worker/worker.go", Data: []byte("// Package worker is a part.\npackage worker\n")},
			}
			for _, p := range []string{"placement", "autoscale", "keepalive", "fleet", "state", "reconcile"} {
				files = append(files, txtar.File{Name: "scheduler/" + p + "/doc.go", Data: []byte("// Package " + p + " is pure.\npackage " + p + "\n")})
			}
			files = append(files, txtar.File{Name: tc.file, Data: []byte(tc.text)})
			out, failed := makeLint(t, lintTree(t, files))
			if failed != (tc.want != "") || !strings.Contains(out, tc.want) {
				t.Errorf("want %q, got %v:\n%s", tc.want, failed, out)
			}
		})
	}
}

// lintTree writes files into a tree of their own, under this repository's Makefile and rules.
func lintTree(t *testing.T, files []txtar.File) string {
	t.Helper()
	root, dir := harness.Root(t), t.TempDir()
	for _, name := range []string{"Makefile", ".golangci.yml"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(b))
	}
	// The linter is built once, where `make lint` keeps it.
	if err := os.MkdirAll(filepath.Join(root, ".cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, ".cache"), filepath.Join(dir, ".cache")); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		writeFile(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// makeLint runs `make lint`, and reports what it wrote and whether it failed.
func makeLint(t *testing.T, dir string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "-s", "lint")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}
