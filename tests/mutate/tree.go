package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// tree is a copy of the tree, whose files stay as they are: what a mutation changes is laid over them when its tests are built.
type tree struct {
	dir string
	// took is how long a test takes without any mutation, by its package and name.
	took map[string]time.Duration
}

// limits of how long tests may take with a mutation: those that never end, or wait for what does not come, are red for that. End-to-end tests that are broken
// off leave behind what they started: they have the longer limit.
const (
	longest  = 3 * time.Minute
	patience = 20 * time.Second
	// slower is how many times as long as without a mutation they may take, beyond the patience.
	slower = 5
)

// green runs the tests without a mutation: one that is red anyway would show nothing.
func (t *tree) green(ctx context.Context, of []mutation) error {
	if err := t.buildInit(ctx, nil, filepath.Join(t.dir, builtInit)); err != nil {
		return err
	}
	at := filepath.Join(t.dir, "green")
	for _, of := range together(of) {
		if out, err := of.build(ctx, t.dir, at, nil); err != nil {
			return fmt.Errorf("go test -c %s: %w\n%s", of.pkg, err, out)
		}
		out, err := of.run(ctx, t.dir, at, nil, longest)
		if err != nil {
			return fmt.Errorf("the tests fail without any mutation: %w\n%s", err, out)
		}
		for _, test := range passedTest.FindAllStringSubmatch(out, -1) {
			if d, err := time.ParseDuration(test[2]); err == nil {
				t.took[of.pkg+":"+test[1]] = d
			}
		}
	}
	return os.RemoveAll(at)
}

var (
	passedTest  = regexp.MustCompile(`(?m)^--- PASS: (\S+) \((\S+)\)`)
	failedTest  = regexp.MustCompile(`--- FAIL: (\S+)`)
	runningTest = regexp.MustCompile(`(?s)panic: test timed out.*?running tests:\s+(\S+)`)
)

// limit is how long the target's tests may take.
func (t *tree) limit(of target) (time.Duration, error) {
	if of.root {
		return longest, nil
	}
	names, err := regexp.Compile(strings.Join(of.one, "|"))
	if err != nil {
		return 0, err
	}
	all := patience
	for name, took := range t.took {
		if pkg, test, _ := strings.Cut(name, ":"); pkg == of.pkg && names.MatchString(test) {
			all += slower * took
		}
	}
	return min(all, longest), nil
}

// broken is a mutation whose tests are built, or why they are not.
type broken struct {
	mutation
	target
	// at is where what was built lies, env has whatever is built meanwhile be built with the mutation.
	at   string
	env  []string
	took time.Duration
	err  error
}

// build builds the tests of the mutations, the next one's while those of the present one run.
func (t *tree) build(ctx context.Context, chosen []mutation) <-chan broken {
	out := make(chan broken)
	go func() {
		defer close(out)
		for i, m := range chosen {
			if ctx.Err() != nil {
				return
			}
			begun := time.Now()
			b := broken{mutation: m, target: m.target(), at: filepath.Join(t.dir, fmt.Sprintf("b%d", i))}
			b.err = t.lay(ctx, &b)
			b.took = time.Since(begun)
			out <- b
		}
	}()
	return out
}

// lay lays the mutation over the tree and builds its tests.
func (t *tree) lay(ctx context.Context, b *broken) error {
	path := filepath.Join(t.dir, b.file)
	was, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := bytes.Count(was, []byte(b.old)); n != 1 {
		return fmt.Errorf("%q is %d times in %s: has the code moved on?", b.old, n, b.file)
	}
	over := map[string]string{path: filepath.Join(b.at, "mutation.go")}
	if strings.HasPrefix(b.file, initDir+"/") {
		over[filepath.Join(t.dir, builtInit)] = filepath.Join(b.at, "init")
	}
	listed, err := json.Marshal(map[string]any{"Replace": over})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.at, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(over[path], bytes.Replace(was, []byte(b.old), []byte(b.new), 1), 0o644); err != nil {
		return err
	}
	overlay := filepath.Join(b.at, "overlay.json")
	if err := os.WriteFile(overlay, listed, 0o644); err != nil {
		return err
	}
	b.env = []string{goFlags + " -overlay=" + overlay}
	if init := over[filepath.Join(t.dir, builtInit)]; init != "" {
		// It is laid over the one that there is once it is built.
		if err := os.WriteFile(init, nil, 0o644); err != nil {
			return err
		}
		if err := t.buildInit(ctx, b.env, init); err != nil {
			return err
		}
	}
	if out, err := b.build(ctx, t.dir, b.at, b.env); err != nil {
		return fmt.Errorf("no test failed, but the build: %w\n%s", err, out)
	}
	return nil
}

// noticed runs the tests of a mutation. It returns the first one that failed, "" where none did.
func (t *tree) noticed(ctx context.Context, b broken) (string, error) {
	defer os.RemoveAll(b.at)
	if b.err != nil {
		return "", b.err
	}
	limit, err := t.limit(b.target)
	if err != nil {
		return "", err
	}
	out, err := b.run(ctx, t.dir, b.at, b.env, limit)
	if err == nil {
		return "", nil
	}
	if test := failedTest.FindStringSubmatch(out); test != nil {
		return test[1], nil
	}
	if test := runningTest.FindStringSubmatch(out); test != nil {
		return test[1] + " does not end", nil
	}
	return "", fmt.Errorf("no test failed, but their program: %w\n%s", err, out)
}

// initDir has the program that a sandbox made ahead begins with, which the binary holds as builtInit.
const (
	initDir   = "runtime/attach/init"
	builtInit = "runtime/attach/assets/init"
)

func (t *tree) buildInit(ctx context.Context, env []string, into string) error {
	out, err := command(ctx, t.dir, env, "go", "build", "-ldflags", "-s -w -E main.enter", "-o", into, "./"+initDir)
	if err != nil {
		return fmt.Errorf("go build ./%s: %w\n%s", initDir, err, out)
	}
	return nil
}
