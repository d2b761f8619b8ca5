//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernel is Debian's, unpacked.
type kernel struct {
	// release is its version as its modules' directory has it, image the kernel itself, root the directory with everything.
	release, image, root string
}

// fetch gets Debian's kernel and a static busybox, which are unpacked and not installed: this machine stays as it is.
func fetch(ctx context.Context, work string) (kernel, error) {
	name, err := kernelPackage(ctx)
	if err != nil {
		return kernel{}, err
	}
	root := filepath.Join(work, name)
	if _, err := os.Stat(root); err != nil {
		if err := unpack(ctx, work, root, name, "busybox-static"); err != nil {
			return kernel{}, err
		}
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("the package %s has not one kernel but %q (%w)", name, images, err)
	}
	return kernel{strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), images[0], root}, nil
}

// kernelPackage is the package that the newest kernel's name stands for.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "linux-image-amd64").Output()
	if err != nil || len(out) == 0 {
		return "", errors.New("apt knows no package linux-image-amd64: this needs Debian's package lists ('apt-get update')")
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("linux-image-amd64 depends on no kernel: %s", out)
}

func unpack(ctx context.Context, work, root string, packages ...string) error {
	debs, err := os.MkdirTemp(work, "debs-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(debs) }()
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-qq"}, packages...)...)
	cmd.Dir = debs
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	// What is there is complete.
	next := root + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	for _, f := range files {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", f, next).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(f), err, out)
		}
	}
	return os.Rename(next, root)
}
