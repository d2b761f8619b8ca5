// Package cli_test runs the real CLI against the real control API, with stand-ins for what needs containers.
package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/cli/standin"
)

// binDir holds the CLI under test.
var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tatami-cli")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "tatami"), "github.com/tatami-faas/tatami/cmd/tatami")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the CLI: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			t.Parallel()
			s := standin.Start(t, standin.Config{})
			testscript.Run(t, testscript.Params{
				Files: []string{f}, Setup: func(env *testscript.Env) error { return setup(env, s) }, Cmds: commands(s),
				UpdateScripts: os.Getenv("UPDATE_GOLDEN") == "1", RequireExplicitExec: true,
			})
		})
	}
}

func setup(env *testscript.Env, s *standin.System) error {
	goEnv, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		return err
	}
	dirs := strings.Split(strings.TrimSpace(string(goEnv)), "\n")
	for k, v := range map[string]string{
		"PATH": binDir + string(os.PathListSeparator) + os.Getenv("PATH"), "TATAMI_SERVER": "unix://" + s.Socket, "CONTROL": s.Control.URL,
		"PUBLIC": s.Public.URL, "TOKEN_FILE": filepath.Join(s.Dir, "token"), "TOKEN": s.Auth.Token(), "XDG_CONFIG_HOME": env.WorkDir + "/config",
		"GOCACHE": dirs[0], "GOMODCACHE": dirs[1], "GOROOT": dirs[2], "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0", "TZ": "UTC",
		"INSTANCE": string(standin.InstanceID), "INVOCATION": string(standin.InvocationID), "DEAD": string(standin.DeadID),
	} {
		env.Setenv(k, v)
	}
	return nil
}

// commands are what scripts have besides testscript's own.
func commands(s *standin.System) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// exits CODE COMMAND...: the command ends with the code.
		"exits": func(ts *testscript.TestScript, _ bool, args []string) {
			want, err := strconv.Atoi(args[0])
			ts.Check(err)
			err = ts.Exec(args[1], args[2:]...)
			var exit *exec.ExitError
			got := 0
			if errors.As(err, &exit) {
				got = exit.ExitCode()
			} else {
				ts.Check(err)
			}
			if got != want {
				ts.Fatalf("ended with %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
			}
		},
		// outcome FUNCTION ready|hold|REASON [LOG...]: what becomes of the function's next revisions. \e in a log line is an escape.
		"outcome": func(_ *testscript.TestScript, _ bool, args []string) {
			o := standin.Outcome{Hold: args[1] == "hold"}
			if args[1] != "ready" && args[1] != "hold" {
				o.Reason = args[1]
				for _, l := range args[2:] {
					o.Logs = append(o.Logs, strings.ReplaceAll(l, `\e`, "\x1b"))
				}
			}
			s.Scheduler.Set(args[0], o)
		},
		"silence": func(*testscript.TestScript, bool, []string) { s.Scheduler.Silence() },
		// layout DIR ARCH CONTENT: an OCI layout directory of one image.
		"layout": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(writeLayout(ts.MkAbs(args[0]), args[1], args[2]))
		},
		// normalize stdout|stderr: writes the output, with what differs between runs replaced, to the file "normalized".
		"normalize": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(os.WriteFile(ts.MkAbs("normalized"), []byte(normalize(ts.ReadFile(args[0]))), 0o600))
		},
		// objects N: the store holds as many blobs.
		"objects": func(ts *testscript.TestScript, _ bool, args []string) {
			all, err := s.Bus.Artifacts().List(context.Background())
			ts.Check(err)
			if fmt.Sprint(len(all)) != args[0] {
				ts.Fatalf("%d blobs", len(all))
			}
		},
		// live FUNCTION: prints the live revision.
		"live": func(ts *testscript.TestScript, _ bool, args []string) {
			ref, err := functions.ParseRef(args[0])
			ts.Check(err)
			fn, _, err := s.Bus.Functions().Get(context.Background(), bus.FunctionKey(ref))
			ts.Check(err)
			ts.Setenv("LIVE", string(fn.Live))
			ts.Setenv("PREVIOUS", string(fn.Previous))
		},
	}
}

var changing = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC| [A-Z]{3,4})?`), "TIME"},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "URL"},
	{regexp.MustCompile(`"took": "[^"]+"|took: \S+`), "TOOK"},
	{regexp.MustCompile(`/\S*standin\d+`), "DIR"},
	{regexp.MustCompile(`rev_[a-z2-7]{16}`), "REV"},
	{regexp.MustCompile(`nod_[a-z2-7]{26}`), "NODE"},
	{regexp.MustCompile(`sha256:[0-9a-f]{12,64}`), "DIGEST"},
	{regexp.MustCompile(`("?size"?: )\d+`), "${1}SIZE"},
	{regexp.MustCompile(`(up|for|oldest)( +)\d+[smhd]`), "$1${2}AGE"},
	{regexp.MustCompile(`\d+[smhd] ago`), "AGE ago"},
}

func normalize(s string) string {
	for _, c := range changing {
		s = c.what.ReplaceAllString(s, c.with)
	}
	return s
}

// writeLayout writes the image as `oci-layout` directories are.
func writeLayout(dir, arch, content string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	img, err := standin.MakeImage(arch, standin.File{Name: "function", Content: content})
	if err != nil {
		return err
	}
	for d, b := range img.Blobs {
		if err := os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(d, "sha256:")), b, 0o600); err != nil {
			return err
		}
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": img.Digest, "size": len(img.Blobs[img.Digest]),
			"platform": map[string]string{"os": "linux", "architecture": arch},
		}},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)
}

// A stream that is followed ends with Ctrl-C, and says so by its exit code.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	dir := t.TempDir()
	if err := writeLayout(dir, "amd64", "x"); err != nil {
		t.Fatal(err)
	}
	tatami := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "tatami"), args...)
		cmd.Env = append(os.Environ(), "TATAMI_SERVER=unix://"+s.Socket)
		return cmd
	}
	if out, err := tatami("deploy", dir, "--name", "hello").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := tatami("logs", "hello", "-f")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 512); !bytes.Contains(seen, []byte("later\n")); {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q\n%s", err, seen, stderr.String())
		}
		seen = append(seen, buf[:n]...)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || stderr.Len() > 0 {
		t.Errorf("ended with %d, %q", code, stderr.String())
	}
}
