package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tatami-faas/tatami/tests/process"
)

// debianSuite is what the interpreters' packages are taken from.
const debianSuite = "bookworm"

// interpreter is a language whose hello is started from an image made of Debian's packages.
type interpreter struct {
	name, pkg string
	// finish is what the packages' own scripts would do to what is unpacked, which want a whole system around them; nil for nothing. It leaves
	// the file finished.
	finish   []string
	finished string
	command  []string
	// file is the program's name, text the program.
	file, text string
}

func interpreters() []interpreter {
	return []interpreter{
		{
			name: "python", pkg: "python3", command: []string{"/usr/bin/python3", "/hello.py"}, file: "hello.py",
			finish: []string{"/usr/bin/python3", "-m", "compileall", "-q", "/usr/lib/python3.11"}, finished: "/usr/lib/python3.11/__pycache__/os.cpython-311.pyc",
			text: `import os, socketserver
from http.server import BaseHTTPRequestHandler


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"Hello from python\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


socketserver.ThreadingTCPServer(("", int(os.environ["PORT"])), Hello).serve_forever()
`,
		},
		{
			name: "node", pkg: "nodejs", command: []string{"/usr/bin/node", "/hello.js"}, file: "hello.js",
			text: `require("http").createServer((_, answer) => answer.end("Hello from node\n")).listen(process.env.PORT)
`,
		},
	}
}

// benchInterpreters measures starts from zero of functions in Python and Node, by turns with the same program started by itself, on the bare
// machine, from the same files.
func benchInterpreters(ctx context.Context, binary string) (figures []figure, err error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return nil, fmt.Errorf("the images are made with mmdebstrap: apt-get install mmdebstrap (%w)", err)
	}
	dir, err := os.MkdirTemp("/tmp", "ttlang")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := startServer(ctx, binary, "--sandbox-pool", activationPool)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	for _, in := range interpreters() {
		f, err := in.measure(ctx, s, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", in.name, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}

func (in interpreter) measure(ctx context.Context, s *server, dir string) (figure, error) {
	begun := time.Now()
	saved, root, err := in.image(ctx, dir)
	if err != nil {
		return figure{}, err
	}
	fmt.Printf("  cold: image of %s made in %s\n", in.name, time.Since(begun).Round(time.Second))
	if err := s.deployFile(ctx, in.name, saved, "scale: {keepAlive: 1s}\n"); err != nil {
		return figure{}, err
	}
	var ours, bare []float64
	phases := map[string][]float64{}
	for range 4 * rounds {
		took, timing, err := coldSample(ctx, s, in.name)
		if err != nil {
			return figure{}, err
		}
		ours = append(ours, took)
		addPhases(phases, timing)
		time.Sleep(100 * time.Millisecond)
		d, err := in.start(ctx, root)
		if err != nil {
			return figure{}, err
		}
		bare = append(bare, ms(d))
	}
	slices.Sort(ours)
	slices.Sort(bare)
	fmt.Printf("  cold: %s p50 %.1f ms, p99 %.1f ms; by itself p50 %.1f ms, p99 %.1f ms\n",
		in.name, quantile(ours, 0.5), quantile(ours, 0.99), quantile(bare, 0.5), quantile(bare, 0.99))
	printPhases(in.name, phases)
	return beside("cold", "p50_ms_"+in.name, "ms", quantile(ours, 0.5), "interpreter", quantile(bare, 0.5), len(ours)), nil
}

// image makes an image of the interpreter's package, what that depends on, and the program, and the same as a directory.
func (in interpreter) image(ctx context.Context, dir string) (saved, root string, err error) {
	root = filepath.Join(dir, in.name)
	if err := quietly(exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--format=directory",
		"--include="+in.pkg, "--dpkgopt=path-exclude=/usr/share/doc/*", debianSuite, root)); err != nil {
		return "", "", err
	}
	if in.finish != nil {
		if err := quietly(exec.CommandContext(ctx, "chroot", append([]string{root}, in.finish...)...)); err != nil {
			return "", "", err
		}
		if _, err := os.Stat(filepath.Join(root, in.finished)); err != nil {
			return "", "", fmt.Errorf("the packages are not finished: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, in.file), []byte(in.text), 0o644); err != nil {
		return "", "", err
	}
	packages, program := filepath.Join(dir, in.name+"-packages.tar"), filepath.Join(dir, in.name+"-program.tar")
	for _, args := range [][]string{{"-cf", packages, "--exclude=./" + in.file, "."}, {"-cf", program, in.file}} {
		if err := quietly(exec.CommandContext(ctx, "tar", append([]string{"-C", root}, args...)...)); err != nil {
			return "", "", err
		}
	}
	saved = filepath.Join(dir, in.name+".tar")
	return saved, root, in.save(saved, packages, program)
}

// save writes the image as `docker save` does.
func (in interpreter) save(path string, layers ...string) error {
	img := empty.Image
	for _, file := range layers {
		l, err := tarball.LayerFromFile(file)
		if err != nil {
			return err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return err
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config.Entrypoint, cfg.Config.User = in.command, "65532"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return err
	}
	tag, err := name.NewTag("bench.invalid/" + in.name + ":1")
	if err != nil {
		return err
	}
	return tarball.WriteToFile(path, tag, img)
}

// start runs the program by itself until its first answer.
func (in interpreter) start(ctx context.Context, root string) (took time.Duration, err error) {
	addr, err := process.FreeAddr("")
	if err != nil {
		return 0, err
	}
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	begun := time.Now()
	pid, err := syscall.ForkExec(in.command[0], in.command, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/bin", "HOME=/", "PORT=" + text},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys:   &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}},
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, werr := syscall.Wait4(pid, nil, 0, nil)
		err = errors.Join(err, werr)
	}()
	if err := firstAnswerAt(ctx, pid, port); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
}

// quietly runs a program whose output matters only if it fails.
func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
