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
	only := flag.String("only", "", "a regular expression: only the mutations whose names, or whose files, match")
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
	chosen := slices.DeleteFunc(slices.Concat(mutations, sandboxes), func(m mutation) bool { return !match.MatchString(m.name) && !match.MatchString(m.file) })
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
	if err := buildInit(ctx, dir); err != nil {
		return err
	}
	var plain []string
	seen := map[string]bool{}
	for _, m := range of {
		if !m.needsRoot() {
			if pkg, _, _ := strings.Cut(m.tests, ":"); !slices.Contains(plain, pkg) {
				plain = append(plain, pkg)
			}
			continue
		}
		if seen[m.tests] {
			continue
		}
		seen[m.tests] = true
		if out, err := m.test(ctx, dir); err != nil {
			return fmt.Errorf("the tests fail without any mutation: %w\n%s", err, out)
		}
	}
	if len(plain) == 0 {
		return nil
	}
	if out, err := goTest(ctx, dir, plain...); err != nil {
		return fmt.Errorf("the tests fail without any mutation: %w\n%s", err, out)
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
	if err := m.write(ctx, dir, bytes.Replace(was, []byte(m.old), []byte(m.new), 1)); err != nil {
		return "", err
	}
	out, failed := m.test(ctx, dir)
	if err := m.write(ctx, dir, was); err != nil {
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

// write gives the mutation's file this content. What is a part of the binary is built anew.
func (m *mutation) write(ctx context.Context, dir string, content []byte) error {
	if err := os.WriteFile(filepath.Join(dir, m.file), content, 0o644); err != nil {
		return err
	}
	if strings.HasPrefix(m.file, initDir+"/") {
		return buildInit(ctx, dir)
	}
	return nil
}

// initDir has the program that a sandbox made ahead begins with, which the binary holds.
const initDir = "runtime/attach/init"

func buildInit(ctx context.Context, dir string) error {
	out, err := command(ctx, dir, "build", "-trimpath", "-ldflags", "-s -w -E main.enter", "-o", "runtime/attach/assets/init", "./"+initDir)
	if err != nil {
		return fmt.Errorf("go build ./%s: %w\n%s", initDir, err, out)
	}
	return nil
}

// needsRoot reports whether the tests are end-to-end tests.
func (m *mutation) needsRoot() bool {
	return strings.Contains(m.tests, " ") || strings.HasPrefix(m.tests, "./tests/")
}

// test runs the mutation's tests.
func (m *mutation) test(ctx context.Context, dir string) (string, error) {
	if pkg, one, named := strings.Cut(m.tests, " "); named {
		return goTest(ctx, dir, "-tags", "e2e", "-run", "^"+one+"$", pkg)
	}
	if pkg, one, named := strings.Cut(m.tests, ":"); named {
		return goTest(ctx, dir, "-timeout", "1m", "-run", "^"+one+"$", pkg)
	}
	if m.needsRoot() {
		return goTest(ctx, dir, "-tags", "e2e", m.tests)
	}
	return goTest(ctx, dir, m.tests)
}

func goTest(ctx context.Context, dir string, args ...string) (string, error) {
	return command(ctx, dir, append([]string{"test", "-vet=off", "-short", "-failfast", "-timeout", "3m"}, args...)...)
}

// command runs the tool go in the copy.
func command(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// Go's tools would take a copy below a repository for a part of it.
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
