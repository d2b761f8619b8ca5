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
	only := flag.String("only", "", "a regular expression: only the mutations whose names, files or tests match")
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
	chosen := slices.DeleteFunc(rows(), func(m mutation) bool {
		return !match.MatchString(m.name) && !match.MatchString(m.file) && !match.MatchString(m.tests)
	})
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
	return try(ctx, dir, chosen)
}

// try breaks one promise after the other and prints who noticed.
func try(ctx context.Context, dir string, chosen []mutation) error {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"mutation", "file", "noticed by", "took"})
	survived, broken, all := 0, 0, time.Now()
	for _, m := range chosen {
		begun := time.Now()
		by, err := m.try(ctx, dir)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			// The others are shown all the same.
			fmt.Fprintf(os.Stderr, "mutate: %s: %v\n", m.name, err)
			by = "COULD NOT BE TRIED"
			broken++
		case by == "":
			by = "NOBODY"
			survived++
		}
		fmt.Printf("  %-44s %s\n", m.name, by)
		t.AppendRow(table.Row{m.name, m.file, by, time.Since(begun).Round(100 * time.Millisecond)})
	}
	fmt.Printf("\n%s\n", t.Render())
	if survived+broken > 0 {
		return fmt.Errorf("of %d mutations, %d were not noticed and %d could not be tried", len(chosen), survived, broken)
	}
	fmt.Printf("mutate: passed (each of %d mutations turns its tests red, in %v)\n", len(chosen), time.Since(all).Round(time.Second))
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
	for _, t := range together(of) {
		if out, err := t.run(ctx, dir); err != nil {
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
	out, failed := "", m.write(ctx, dir, bytes.Replace(was, []byte(m.old), []byte(m.new), 1))
	if failed == nil {
		out, failed = m.target().run(ctx, dir)
	}
	if err := m.write(ctx, dir, was); err != nil {
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
