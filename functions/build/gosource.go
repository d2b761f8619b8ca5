package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// maxCompilerLines is how much of the compiler's output an error carries.
	maxCompilerLines = 60
	// stopGrace is how long the compiler has to end after a cancellation.
	stopGrace = 5 * time.Second
)

// GoSource compiles the package o.Handler of the module in dir, statically and reproducibly, and makes an image of it with the
// entrypoint /function. It runs the Go command of this machine with the user's environment.
func GoSource(ctx context.Context, dir string, o Options) (*Image, error) {
	o = o.withDefaults(dir)
	command, err := goCommand(o)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	if err := checkModule(root, dir); err != nil {
		return nil, err
	}
	pkg := filepath.Clean(o.Handler)
	if filepath.IsAbs(pkg) || pkg == ".." || strings.HasPrefix(pkg, ".."+string(filepath.Separator)) {
		return nil, fault.New(fault.CodeInvalidSpec, "handler %s lies outside of %s", o.Handler, dir).WithField("handler")
	}
	if info, err := os.Stat(filepath.Join(root, pkg)); err != nil || !info.IsDir() {
		return nil, fault.New(fault.CodeInvalidSpec, "handler %s is no directory in %s", o.Handler, dir).WithField("handler").
			WithHint("handler is the directory of the main package, such as ./cmd/hello")
	}
	out, err := os.MkdirTemp(o.TempDir, "tatami-go-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the binary: %w", err)
	}
	defer func() { _ = os.RemoveAll(out) }()

	o.progress(Progress{Step: "compile", Name: o.Name})
	binary := filepath.Join(out, "function")
	if err := compile(ctx, command, root, "./"+filepath.ToSlash(pkg), binary, o); err != nil {
		return nil, err
	}
	return single(ctx, binary, KindGo, o)
}

func goCommand(o Options) (string, error) {
	name := o.Go
	if name == "" {
		name = "go"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidRequest, err, "no Go toolchain to compile with").
			WithHint("install Go (https://go.dev/dl, or apt-get install golang-go), or deploy a static binary or an image instead")
	}
	return path, nil
}

// checkModule looks for the go.mod that dir belongs to.
func checkModule(root, shown string) error {
	for at := root; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, "go.mod")); err == nil && !info.IsDir() {
			return nil
		}
		if filepath.Dir(at) == at {
			break
		}
	}
	return invalid("%s holds Go files but belongs to no module: go.mod is missing", shown).
		WithHint("make one: cd %s && go mod init %s && go mod tidy", shown, moduleName(root))
}

// moduleName makes a module path of a directory's name.
func moduleName(root string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, strings.ToLower(filepath.Base(root)))
	if name == "" {
		return "function"
	}
	return name
}

func compile(ctx context.Context, command, dir, pkg, binary string, o Options) error {
	cmd := exec.CommandContext(ctx, command, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", binary, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.Architecture)
	output := &head{most: 256 << 10}
	cmd.Stdout, cmd.Stderr = output, output
	// An interrupt lets the compiler remove its own temporary files.
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return cmd.Process.Kill()
		}
		return nil
	}
	cmd.WaitDelay = stopGrace
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return fault.Wrap(fault.CodeInvalidRequest, err, "run %s", command)
		}
		return compileError(dir, pkg, output.lines())
	}
	head, err := headOf(binary)
	if err != nil || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return invalid("%s is no main package: there is nothing to run", filepath.Join(dir, pkg)).WithField("handler").
			WithHint("set handler in tatami.yaml to the directory of the package with func main, such as ./cmd/hello")
	}
	return nil
}

func headOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 4)
	_, err = f.Read(head)
	return head, err
}

// compileError shows what the compiler said and, for the usual causes, what to do.
func compileError(dir, pkg string, lines []string) error {
	said := strings.Join(lines, "\n")
	e := invalid("%s does not compile", filepath.Join(dir, filepath.FromSlash(pkg))).WithHint("correct the code and deploy again; nothing was changed")
	for _, known := range []struct{ sign, hint string }{
		{"missing go.sum entry", "run: go mod tidy"},
		{"updates to go.mod needed", "run: go mod tidy"},
		{"is not in std", "check the import's path; for a package of another module run: go mod tidy"},
		{"no required module provides package", "run: go mod tidy"},
		{"cannot find main module", "run: go mod init && go mod tidy"},
		{"go.work", "build without the workspace: GOWORK=off, or add the module to go.work"},
		{"requires go >=", "install a newer Go (https://go.dev/dl), or lower the go line of go.mod"},
		{"toolchain not available", "install a newer Go (https://go.dev/dl), or lower the go line of go.mod"},
		{"build constraints exclude all Go files", "a package needs cgo or another system; functions are built with CGO_ENABLED=0 for Linux"},
		{"no Go files in", "set handler in tatami.yaml to the directory of the package with func main, such as ./cmd/hello"},
		{"function main is undeclared", "a function is a program: the main package needs func main"},
		{"unsupported GOOS/GOARCH", "the Go toolchain cannot build for the nodes' architecture; install a newer one"},
		{"dial tcp", "a module could not be downloaded; check the network or vendor it (go mod vendor)"},
	} {
		if strings.Contains(said, known.sign) {
			e.Hint = known.hint
			break
		}
	}
	return e.WithDetails(lines...)
}

// head keeps the first bytes that a command writes.
type head struct {
	most int
	buf  bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	if room := h.most - h.buf.Len(); room > 0 {
		h.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (h *head) lines() []string {
	lines := strings.Split(strings.TrimRight(h.buf.String(), "\n"), "\n")
	if n := len(lines); n > maxCompilerLines {
		lines = append(lines[:maxCompilerLines:maxCompilerLines], fmt.Sprintf("… and %d more lines", n-maxCompilerLines))
	}
	return lines
}
