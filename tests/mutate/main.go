// Command mutate breaks one promise of the product after the other in a copy of the tree, and shows that the short tests of the packages
// concerned notice: a promise whose mutation stays green is held by nothing.
package main

import (
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
	t := &tree{dir: dir, took: map[string]time.Duration{}}
	if err := t.green(ctx, chosen); err != nil {
		return err
	}
	return t.try(ctx, chosen)
}

// try breaks one promise after the other and prints who noticed.
func (t *tree) try(ctx context.Context, chosen []mutation) error {
	w := table.NewWriter()
	w.SetStyle(table.StyleRounded)
	w.AppendHeader(table.Row{"mutation", "file", "noticed by", "built in", "took"})
	survived, broken, all := 0, 0, time.Now()
	for b := range t.build(ctx, chosen) {
		begun := time.Now()
		by, err := t.noticed(ctx, b)
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil:
			// The others are shown all the same.
			fmt.Fprintf(os.Stderr, "mutate: %s: %v\n", b.name, err)
			by = "COULD NOT BE TRIED"
			broken++
		case by == "":
			by = "NOBODY"
			survived++
		}
		fmt.Printf("  %-44s %s\n", b.name, by)
		w.AppendRow(table.Row{b.name, b.file, by, b.took.Round(100 * time.Millisecond), time.Since(begun).Round(100 * time.Millisecond)})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Printf("\n%s\n", w.Render())
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
	dir, err := os.MkdirTemp("", "mutate")
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
