//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// verdicts are the lines with which the machine ends.
const (
	passed = "test-v2: all passed"
	failed = "test-v2: some failed"
)

// errTests says that the machine told of failed tests.
var errTests = errors.New("tests failed in the emulated machine; the lines above say which")

// errNoVerdict says that the machine ended before its tests did.
var errNoVerdict = errors.New("the emulated machine ended before it said how the tests went")

// boot runs the machine until it ends, and passes on what it says. It has no network and no disk.
func boot(ctx context.Context, kernel, initramfs, only string) error {
	line := "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on cgroup_no_v1=all"
	if only != "" {
		if strings.ContainsAny(only, " \"'") {
			return fmt.Errorf("the pattern %q has a character that the kernel's command line does not take", only)
		}
		line += " tatami.run=" + only
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072", "-nographic",
		"-no-reboot", "-nic", "none", "-kernel", kernel, "-initrd", initramfs, "-append", line)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the emulated machine: %w", err)
	}
	verdict := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := strings.TrimRight(lines.Text(), "\r")
		if text == passed || text == failed {
			verdict = text
		}
		fmt.Println(text)
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case verdict == failed:
		return errTests
	case verdict == "":
		return errors.Join(errNoVerdict, err, lines.Err())
	}
	return err
}
