// Command mutate breaks one promise of the product after the other in a copy of the tree, and shows that the short tests of the packages
// concerned notice: a promise whose mutation stays green is held by nothing.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

func main() {
	only := flag.String("only", "", "a regular expression: only the mutations whose names match")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintf(os.Stderr, "mutate: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	chosen := slices.DeleteFunc(slices.Clone(mutations), func(m mutation) bool { return !match.MatchString(m.name) })
	if len(chosen) == 0 {
		return fmt.Errorf("no mutation matches %q", only)
	}
	dir, err := copyTree(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := green(ctx, dir, chosen); err != nil {
		return err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"mutation", "file", "noticed by", "took"})
	survived := 0
	for _, m := range chosen {
		begun := time.Now()
		by, err := m.try(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if by == "" {
			by = "NOBODY"
			survived++
		}
		fmt.Printf("  %-44s %s\n", m.name, by)
		t.AppendRow(table.Row{m.name, m.file, by, time.Since(begun).Round(100 * time.Millisecond)})
	}
	fmt.Printf("\n%s\n", t.Render())
	if survived > 0 {
		return fmt.Errorf("%d of %d mutations were not noticed", survived, len(chosen))
	}
	fmt.Printf("mutate: passed (each of %d mutations turns its package's tests red)\n", len(chosen))
	return nil
}

// copyTree copies what git knows of this tree, changed or not, to a new directory.
func copyTree(ctx context.Context) (string, error) {
	files, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	// The assets that make build made are no part of the tree, but of the binary.
	built, err := filepath.Glob("runtime/attach/assets/*")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "tatami-mutate")
	if err != nil {
		return "", err
	}
	for _, name := range append(strings.Split(strings.Trim(string(files), "\x00"), "\x00"), built...) {
		content, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o644)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// green runs the tests without a mutation: one that is red anyway would show nothing.
func green(ctx context.Context, dir string, of []mutation) error {
	var packages []string
	for _, m := range of {
		packages = append(packages, m.tests)
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	rooted := slices.DeleteFunc(slices.Clone(packages), func(p string) bool { return !needsRoot(p) })
	for _, some := range [][]string{slices.DeleteFunc(packages, needsRoot), rooted} {
		if len(some) == 0 {
			continue
		}
		if out, err := goTest(ctx, dir, some...); err != nil {
			return fmt.Errorf("the tests fail without any mutation: %w\n%s", err, out)
		}
	}
	return nil
}

// try applies the mutation, runs its tests and takes it back. It returns the first test that failed, "" where none did.
func (m *mutation) try(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, m.file)
	was, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(was, []byte(m.old)); n != 1 {
		return "", fmt.Errorf("%q is %d times in %s: has the code moved on?", m.old, n, m.file)
	}
	if err := os.WriteFile(path, bytes.Replace(was, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		return "", err
	}
	out, failed := goTest(ctx, dir, m.tests)
	if err := os.WriteFile(path, was, 0o644); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if failed == nil {
		return "", nil
	}
	if test := failedTest.FindStringSubmatch(out); test != nil {
		return test[1], nil
	}
	if strings.Contains(out, "panic: test timed out") {
		return "a test that does not end", nil
	}
	return "", fmt.Errorf("no test failed, but the build: %w\n%s", failed, out)
}

var failedTest = regexp.MustCompile(`--- FAIL: (\S+)`)

// needsRoot reports whether the package's tests are end-to-end tests.
func needsRoot(pkg string) bool { return strings.HasPrefix(pkg, "./tests/") }

// goTest tests packages that all need root or all need none.
func goTest(ctx context.Context, dir string, packages ...string) (string, error) {
	args := []string{"test", "-vet=off", "-short", "-failfast", "-timeout", "3m"}
	if needsRoot(packages[0]) {
		args = append(args, "-tags", "e2e")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = dir
	// Go's tools would take a copy below a repository for a part of it.
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
