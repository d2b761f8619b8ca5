//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

var shellBlocks = regexp.MustCompile("(?s)```console\n(.*?)```")

// Every command of the README is run, in order, as it stands there: in one shell, on the default ports and directories where they are
// free. Only what would start the tests again is left to what runs them: `make test` is the command of .ci/run.
func TestReadmeCommands(t *testing.T) {
	harness.Require(t)
	root := harness.Root(t)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile(filepath.Join(root, ".ci", "run"))
	if err != nil || !bytes.Contains(ci, []byte("make test")) {
		t.Errorf(".ci/run does not run `make test`: %v", err)
	}
	var script strings.Builder
	n := 0
	for _, block := range shellBlocks.FindAllStringSubmatch(string(readme), -1) {
		for line := range strings.Lines(block[1]) {
			cmd, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
			if !ok || cmd == "make test" {
				continue
			}
			n++
			script.WriteString(readmeStep(n, cmd))
		}
	}
	if n < 10 {
		t.Fatalf("the README shows %d commands only; are they still in console blocks?", n)
	}
	work := t.TempDir()
	// The README works in a clone: here a copy of what is committed or changed, so that nothing is written into the tree under test.
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", root, filepath.Join(work, "tatami")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", readmePrelude+script.String())
	cmd.Dir = filepath.Join(work, "tatami")
	// The README's defaults would use this machine's own installation: the environment moves it, the commands stay as they are.
	for _, addr := range []string{"127.0.0.1:8080", "127.0.0.1:8081"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("the README's commands need %s, which is taken: %v", addr, err)
		}
		l.Close()
	}
	run, err := os.MkdirTemp("/tmp", "ttreadme") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	cmd.Env = append(os.Environ(), "TATAMI_DATA_DIR="+filepath.Join(work, "data"), "TATAMI_RUN_DIR="+run, "TATAMI_SOCKET="+filepath.Join(run, "control.sock"), "HOME="+work, "GOPATH="+goEnv(t, "GOPATH"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "GOCACHE="+goEnv(t, "GOCACHE"), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d commands ran", n)
}

// sudo is only a word here: the test is root. What the README starts with `up` runs until the end; the script goes on when it is ready.
const readmePrelude = `
set -euo pipefail
sudo() { "$@"; }
up_pid=
cleanup() { if [ -n "$up_pid" ]; then kill -INT "$up_pid"; wait "$up_pid" || true; fi; }
trap cleanup EXIT
`

func readmeStep(n int, cmd string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "echo '--- %d'; cat <<'COMMAND'\n$ %s\nCOMMAND\n", n, cmd)
	if strings.HasSuffix(cmd, "tatami up") {
		fmt.Fprintf(&b, "exec 3< <(exec %s); up_pid=$!\nwhile read -r line <&3; do echo \"$line\"; case $line in ready*) break;; esac; done\n", strings.TrimPrefix(cmd, "sudo "))
		b.WriteString("kill -0 $up_pid\n")
		return b.String()
	}
	b.WriteString(cmd + "\n")
	return b.String()
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
