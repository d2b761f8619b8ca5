package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Result is what a run of the CLI gave.
type Result struct {
	Stdout, Stderr string
	Exit           int
}

// CLI runs a client verb against the server whose run directory it is. The error is for a run that did not come to an end of its own.
func CLI(ctx context.Context, binary, runDir, stdin string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "TATAMI_SERVER=unix://"+filepath.Join(runDir, "control.sock"), "NO_COLOR=1")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Result{}, fmt.Errorf("tatami %s: %w", strings.Join(args, " "), err)
	}
	return Result{out.String(), errb.String(), cmd.ProcessState.ExitCode()}, ctx.Err()
}
