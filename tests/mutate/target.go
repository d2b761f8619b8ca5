package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// target is what a mutation's tests are.
type target struct {
	pkg string
	// one are the tests' names, as regular expressions; none are the package's short tests.
	one []string
	// root is set where they are end-to-end tests.
	root bool
}

func (m *mutation) target() target {
	if pkg, one, named := strings.Cut(m.tests, " "); named {
		return target{pkg, []string{"^" + one + "$"}, true}
	}
	if pkg, one, named := strings.Cut(m.tests, ":"); named {
		return target{pkg, []string{"^" + one + "$"}, false}
	}
	return target{pkg: m.tests, root: strings.HasPrefix(m.tests, "./tests/")}
}

// together returns what the mutations' tests are, those of a package without root at once.
func together(of []mutation) []target {
	var all []target
	for _, m := range of {
		t := m.target()
		i := slices.IndexFunc(all, func(o target) bool {
			return o.pkg == t.pkg && o.root == t.root && (!t.root || slices.Equal(o.one, t.one))
		})
		switch {
		case i < 0:
			all = append(all, t)
		case len(t.one) == 0:
			all[i].one = nil
		case len(all[i].one) > 0 && !slices.Contains(all[i].one, t.one[0]):
			all[i].one = append(all[i].one, t.one...)
		}
	}
	return all
}

// run runs the tests in the copy.
func (t target) run(ctx context.Context, dir string) (string, error) {
	// A test that was green before is run again: what it starts is no part of what Go compares.
	args := []string{"test", "-vet=off", "-ldflags=-s -w", "-short", "-failfast", "-count=1", "-timeout", "3m"}
	if len(t.one) > 0 {
		args = append(args, "-run", strings.Join(t.one, "|"))
	}
	if t.root {
		args = append(args, "-tags", "e2e")
	}
	if strings.HasPrefix(t.pkg, "./tests/e2e") {
		if out, err := command(ctx, dir, "build", "-ldflags", "-s -w", "-o", binary, "./cmd/tatami"); err != nil {
			return out, err
		}
	}
	return command(ctx, dir, append(args, t.pkg)...)
}

// binary is what the end-to-end tests of the whole program run, in the copy: it has the mutation in it.
const binary = "bin/tatami"

// initDir has the program that a sandbox made ahead begins with, which the binary holds.
const initDir = "runtime/attach/init"

func buildInit(ctx context.Context, dir string) error {
	out, err := command(ctx, dir, "build", "-ldflags", "-s -w -E main.enter", "-o", "runtime/attach/assets/init", "./"+initDir)
	if err != nil {
		return fmt.Errorf("go build ./%s: %w\n%s", initDir, err, out)
	}
	return nil
}

// command runs the tool go in the copy.
func command(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// Go's tools would take a copy below a repository for a part of it. Without paths in what is built, the next copy needs not build it again.
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false -trimpath", "CGO_ENABLED=0", "TATAMI_BINARY="+filepath.Join(dir, binary))
	// A test's children may outlive it with its output in their hands.
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
