//go:build linux

// Command v2 boots Debian's own kernel in an emulated machine that has cgroups of version 2 only, and runs there the suites of the sandboxes.
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
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	work := flag.String("work", ".cache/v2", "the directory for what is fetched and built")
	only := flag.String("run", "", "run only the tests that match, as 'go test -run' does")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *work, *only); err != nil {
		fmt.Fprintf(os.Stderr, "test-v2: failed: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, work, only string) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("the emulated machine is an amd64 one, and so must this be")
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	k, err := fetch(ctx, work)
	if err != nil {
		return err
	}
	programs, err := build(ctx, work)
	if err != nil {
		return err
	}
	image := filepath.Join(work, "initramfs")
	if err := pack(image, k, programs); err != nil {
		return fmt.Errorf("pack the machine's files: %w", err)
	}
	begun := time.Now()
	if err := boot(ctx, k.image, image, only); err != nil {
		return err
	}
	fmt.Printf("test-v2: passed on Linux %s with cgroup v2 (%.0f s in the emulated machine)\n", k.release, time.Since(begun).Seconds())
	return nil
}

// build compiles what runs in the machine, and returns the directory.
func build(ctx context.Context, work string) (string, error) {
	dir := filepath.Join(work, "programs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"build", "-o", filepath.Join(dir, "testfn"), "./runtime/sandboxtest/testfn"},
		{"build", "-o", filepath.Join(dir, "hostile"), "./tests/escape/hostile"},
		{"test", "-c", "-tags", "e2e", "-o", filepath.Join(dir, "containerd.test"), "./runtime/containerd"},
		{"test", "-c", "-o", filepath.Join(dir, "attach.test"), "./runtime/attach"},
		{"test", "-c", "-tags", "e2e", "-o", filepath.Join(dir, "listens.test"), "./runtime/listens"},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{args[0], "-trimpath", "-ldflags", "-s -w"}, args[1:]...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return dir, nil
}
