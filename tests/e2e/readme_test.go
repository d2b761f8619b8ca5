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
	"slices"
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

var (
	fences       = regexp.MustCompile("(?s)```.*?```")
	inline       = regexp.MustCompile("`tatami ([^`]*)`")
	alternatives = regexp.MustCompile(`\b[a-z]+(\|[a-z]+)+\b`)
)

// Commands within the sentences of the README and of the guides are what the binary has, flags included; those on operating it that stand
// there whole, with their arguments, are run too, but for those that take more than one process.
func TestReadmeSentences(t *testing.T) {
	s := harness.Start(t)
	guides, err := filepath.Glob(filepath.Join(harness.Root(t), "docs", "*.md"))
	if err != nil || len(guides) < 5 {
		t.Fatalf("the guides in docs/: %q %v", guides, err)
	}
	var text, operating string
	for _, file := range append(guides, filepath.Join(harness.Root(t), "README.md")) {
		guide, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sentences := fences.ReplaceAllString(string(guide), "")
		text += sentences
		if filepath.Base(file) == "operating.md" {
			operating = sentences
		}
	}
	s.Deploy("greet", "hello", "")
	node := strings.TrimSpace(s.Must("node", "ls", "-o", "name").Stdout)
	stands := strings.NewReplacer("FUNCTION|INSTANCE", "greet", "NAMESPACE", "default", "NODE", node)
	ran := 0
	for _, m := range inline.FindAllStringSubmatch(text, -1) {
		words := strings.Fields(m[1])
		called := verbs(words)
		help := s.Must(append(called, "--help")...).Stdout
		for _, w := range words {
			if strings.HasPrefix(w, "--") && !strings.Contains(help, w+" ") {
				t.Errorf("`tatami %s`: there is no flag %s", m[1], w)
			}
		}
		if len(called) == len(words) || slices.Contains([]string{"up", "worker", "server", "cluster", "cert"}, words[0]) || !strings.Contains(operating, m[0]) {
			continue
		}
		for _, cmd := range expand(stands.Replace(m[1])) {
			s.Must(strings.Fields(cmd)...)
			ran++
		}
	}
	if ran < 5 {
		t.Errorf("%d commands were run: are they still in docs/operating.md?", ran)
	}
	s.Must("node", "resume", node)
	if resp, body := s.Get("/fn/greet"); resp.StatusCode != 200 {
		t.Errorf("after all of it: %s %s", resp.Status, body)
	}
}

// verbs are the words of a command before its arguments and flags, of alternatives the first.
func verbs(words []string) []string {
	var out []string
	for _, w := range words {
		if strings.HasPrefix(w, "-") || w == strings.ToUpper(w) {
			break
		}
		w, _, _ = strings.Cut(w, "|")
		out = append(out, w)
	}
	return out
}

// expand writes `a|b` as the commands it stands for.
func expand(cmd string) []string {
	m := alternatives.FindString(cmd)
	if m == "" {
		return []string{cmd}
	}
	var out []string
	for alt := range strings.SplitSeq(m, "|") {
		out = append(out, strings.Replace(cmd, m, alt, 1))
	}
	return out
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
