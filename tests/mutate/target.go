package main

import (
	"context"
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

// build builds the tests, and for those of the whole program that, into a directory.
func (t target) build(ctx context.Context, dir, into string, env []string) (string, error) {
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", filepath.Join(into, tests)}
	if t.root {
		args = append(args, "-tags", "e2e")
	}
	if out, err := command(ctx, dir, env, "go", append(args, t.pkg)...); err != nil || !strings.HasPrefix(t.pkg, "./tests/e2e") {
		return out, err
	}
	return command(ctx, dir, env, "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(into, binary), "./cmd/tatami")
}

// run runs the tests that lie in a directory.
func (t target) run(ctx context.Context, dir, at string, env []string, limit time.Duration) (string, error) {
	args := []string{"-test.paniconexit0", "-test.v", "-test.short", "-test.failfast", "-test.timeout", limit.String()}
	if len(t.one) > 0 {
		args = append(args, "-test.run", strings.Join(t.one, "|"))
	}
	env = append(env[:len(env):len(env)], "TATAMI_BINARY="+filepath.Join(at, binary))
	if !t.root {
		// What tests leave behind that do not end goes with the rest. End-to-end tests might leave mounts.
		env = append(env, "TMPDIR="+at)
	}
	return command(ctx, filepath.Join(dir, t.pkg), env, filepath.Join(at, tests), args...)
}

// tests are the tests as a program, binary is what the end-to-end tests of the whole program run: it has the mutation in it.
const (
	tests  = "tests"
	binary = "tatami"
)

// goFlags are for a copy below a repository, which Go's tools would take for a part of it. Without paths in what is built, the next copy needs not build it again.
const goFlags = "GOFLAGS=-buildvcs=false -trimpath"

// command runs a program in a directory.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), goFlags, "CGO_ENABLED=0"), env...)
	// A test's children may outlive it with its output in their hands.
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
