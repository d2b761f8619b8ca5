package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// bareContainerd starts containers by the plain client path: the stock shim of the pinned module, the same runc, limits and seccomp.
type bareContainerd struct {
	client *containerd.Client
	image  containerd.Image
	shim   string
	dir    string
	n      int
	// started is how long it took to start each container that was made, in milliseconds.
	started []float64
}

func newBareContainerd(ctx context.Context, runDir string) (*bareContainerd, error) {
	socket, err := findSocket(runDir)
	if err != nil {
		return nil, err
	}
	b := &bareContainerd{}
	if b.dir, err = os.MkdirTemp("/tmp", "ttbare"); err != nil {
		return nil, err
	}
	b.shim = filepath.Join(b.dir, "containerd-shim-runc-v2")
	for _, build := range [][]string{
		{".", b.shim, "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
		{filepath.Join("functions", "examples", "hello"), filepath.Join(b.dir, "hello"), "."},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", build[1], build[2])
		cmd.Dir = build[0]
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", build[2], err, out)
		}
	}
	if b.client, err = containerd.New(socket, containerd.WithDefaultNamespace("bench")); err != nil {
		return nil, err
	}
	b.image, err = b.importHello(namespaces.WithNamespace(ctx, "bench"))
	return b, err
}

func findSocket(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "containerd.sock" {
			found = path
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no containerd.sock below %s", dir)
	}
	return found, err
}

func (b *bareContainerd) importHello(ctx context.Context) (containerd.Image, error) {
	saved, err := saveHello(b.dir, "65532")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(saved)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	imported, err := b.client.Import(ctx, f)
	if err != nil {
		return nil, err
	}
	image := containerd.NewImage(b.client, imported[0])
	return image, image.Unpack(ctx, "overlayfs")
}

// saveHello makes an image of the directory's program hello that runs as the user, as `docker save` writes it, and returns its path.
func saveHello(dir, user string) (string, error) {
	bin, err := os.ReadFile(filepath.Join(dir, "hello"))
	if err != nil {
		return "", err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "function", Mode: 0o755, Size: int64(len(bin))}),
		second(w.Write(bin)), w.Close()); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "layer.tar")
	if err := os.WriteFile(path, layer.Bytes(), 0o600); err != nil {
		return "", err
	}
	l, err := tarball.LayerFromFile(path)
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return "", err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config.Entrypoint, cfg.Config.User = []string{"/function"}, user
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return "", err
	}
	tag, err := name.NewTag("bench.invalid/hello:1")
	if err != nil {
		return "", err
	}
	saved := filepath.Join(dir, "hello-"+user+".tar")
	return saved, tarball.WriteToFile(saved, tag, img)
}

// start runs one container until its first answer, returns how long that took, and removes the container.
func (b *bareContainerd) start(ctx context.Context) (took time.Duration, err error) {
	ctx = namespaces.WithNamespace(ctx, "bench")
	b.n++
	id := fmt.Sprintf("bare-%d-%d", os.Getpid(), b.n)
	begun := time.Now()
	// A root label keeps the snapshot from being collected before its container exists.
	c, err := b.client.NewContainer(ctx, id,
		containerd.WithImage(b.image), containerd.WithNewSnapshot(id, b.image),
		containerd.WithRuntime(b.shim, nil),
		containerd.WithNewSpec(oci.WithImageConfig(b.image), oci.WithEnv([]string{"PORT=8080"}), oci.WithNoNewPrivileges, oci.WithCapabilities(nil),
			oci.WithMemoryLimit(192<<20), oci.WithCPUCFS(25_000, 100_000), oci.WithPidsLimit(256), seccomp.WithDefaultProfile()))
	if err != nil {
		return 0, err
	}
	defer func() {
		if derr := c.Delete(ctx, containerd.WithSnapshotCleanup); err == nil {
			err = derr
		}
	}()
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return 0, err
	}
	defer func() {
		if derr := b.end(ctx, task); err == nil {
			err = derr
		}
	}()
	made := time.Now()
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	if err := firstAnswer(ctx, int(task.Pid())); err != nil {
		return 0, err
	}
	b.started = append(b.started, ms(time.Since(made)))
	return time.Since(begun), nil
}

func (b *bareContainerd) end(ctx context.Context, task containerd.Task) error {
	exit, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Kill(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	<-exit
	return second(task.Delete(ctx))
}

func (b *bareContainerd) close() error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), "bench"), 10*time.Second)
	defer cancel()
	err := b.client.ImageService().Delete(ctx, b.image.Name())
	return errors.Join(err, b.client.Close(), os.RemoveAll(b.dir))
}

// firstAnswer connects to the function until it answers.
func firstAnswer(ctx context.Context, pid int) error { return firstAnswerAt(ctx, pid, 8080) }

func firstAnswerAt(ctx context.Context, pid, port int) error {
	c, err := firstConnection(ctx, pid, port)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", resp.Status)
	}
	return nil
}

// firstConnection waits until the function listens. One socket is enough: after a refusal it may try again.
func firstConnection(ctx context.Context, pid, port int) (net.Conn, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	fd, err := socketIn(ns, own)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "function")
	defer f.Close()
	// The thread's own pause: the Go runtime's is never shorter than a millisecond.
	pause := unix.NsecToTimespec(int64(250 * time.Microsecond))
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; _ = unix.Nanosleep(&pause, nil) {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err == nil {
			return net.FileConn(f)
		}
	}
	return nil, errors.New("no answer within 30s")
}

// second returns the error of a pair.
func second[T any](_ T, err error) error { return err }
