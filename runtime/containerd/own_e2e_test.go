//go:build linux && e2e

package containerd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// openPool returns a driver that keeps so many sandboxes made ahead, and an image that is prepared. The caller closes it.
func openPool(t *testing.T, size int) (Config, *Driver, functions.Artifact) {
	t.Helper()
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool = size
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	art := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), art); err != nil {
		_ = d.Close()
		t.Fatal(err)
	}
	return cfg, d, art
}

// TestKeeperKilled: sandboxes do not outlive the keeper that saw their output and their end, the pool is made anew under another, and what
// was lost is removed like any other.
func TestKeeperKilled(t *testing.T) {
	cfg, d, art := openPool(t, 2)
	defer func() { _ = d.Close() }()
	awaitPool(t, d, 2)
	sb, err := d.Create(t.Context(), testSpec(art))
	if err != nil {
		t.Fatal(err)
	}
	if path := sb.Info().StartPath; path != pathAttach {
		t.Fatalf("started by the path %s", path)
	}
	awaitServing(t, sb)
	awaitPool(t, d, 2)
	d.pool.mu.Lock()
	waited := d.pool.idle[0].box.info.PID
	d.pool.mu.Unlock()
	keeper, err := parentOf(sb.Info().PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sb.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the sandbox goes on without its keeper")
	}
	if code := sb.Exit().Code; code != unknownExit {
		t.Errorf("exit code %d", code)
	}
	for end := time.Now().Add(20 * time.Second); unix.Kill(waited, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a waiting sandbox goes on without its keeper")
		}
	}
	if err := sb.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	awaitPool(t, d, 2)
	next, err := d.Create(t.Context(), testSpec(art))
	if err != nil {
		t.Fatal(err)
	}
	if path := next.Info().StartPath; path != pathAttach {
		t.Errorf("started by the path %s", path)
	}
	awaitServing(t, next)
	if err := next.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	d.pool.drain()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

func parentOf(pid int) (int, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New("no parent")
}

// TestFilterLikeRunc: the filter of our own compiling decides on every system call as the OCI runtime's does, as far as that knows the call.
func TestFilterLikeRunc(t *testing.T) {
	_, d, art := openPool(t, 1)
	defer func() { _ = d.Close() }()
	filters := map[string]func(arch, number uint32, arg uint64) uint32{}
	for _, path := range []string{pathAttach, pathContainerd} {
		if path == pathAttach {
			awaitPool(t, d, 1)
		} else {
			d.pool.drain()
		}
		sb, err := d.Create(t.Context(), testSpec(art))
		if err != nil {
			t.Fatal(err)
		}
		if got := sb.Info().StartPath; got != path {
			t.Fatalf("started by the path %s", got)
		}
		filters[path] = filterOf(t, sb.Info().PID)
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	arches := map[string][]uint32{"amd64": {0xc000003e, 0x40000003}, "arm64": {0xc00000b7, 0x40000028}}[goruntime.GOARCH]
	const nosys = 0x50000 | uint32(unix.ENOSYS)
	const uretprobe = 335
	newer := 0
	for _, arch := range arches {
		for number := range uint32(1024) {
			for _, arg := range []uint64{0, 1, 8, 9, 16, 17, 38, 40, 44, 0x20000, 0x20008, 0xffffffff, unix.CLONE_NEWUSER, unix.CLONE_NEWNET, unix.CLONE_VM, 1 << 40} {
				ours, theirs := filters[pathAttach](arch, number, arg), filters[pathContainerd](arch, number, arg)
				if arg > 1<<32-1 && arch&0x80000000 == 0 {
					// Arguments of 32 bits are shorter.
					continue
				}
				// Not known to the runtime's library: what the profile says of it holds.
				if ours != theirs && (theirs == nosys || arch == 0xc000003e && number == uretprobe) {
					newer++
					continue
				}
				if ours != theirs {
					t.Errorf("call %d of %#x with %#x: %#x, by the OCI runtime %#x", number, arch, arg, ours, theirs)
				}
			}
		}
	}
	t.Logf("%d decisions on calls that the OCI runtime does not know", newer)
}

// filterOf reads the process's seccomp filter out of the kernel.
func filterOf(t *testing.T, pid int) func(arch, number uint32, arg uint64) uint32 {
	t.Helper()
	const getFilter = 0x420c
	raw, err := func() ([]byte, error) {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		if err := unix.PtraceAttach(pid); err != nil {
			return nil, err
		}
		defer func() { _ = unix.PtraceDetach(pid) }()
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
			return nil, err
		}
		n, _, e := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(pid), 0, 0, 0, 0)
		if e != 0 {
			return nil, fmt.Errorf("length of the filter: %w", e)
		}
		raw := make([]byte, 8*n)
		if _, _, e := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(pid), 0, uintptr(unsafe.Pointer(&raw[0])), 0, 0); e != 0 {
			return nil, fmt.Errorf("the filter: %w", e)
		}
		return raw, nil
	}()
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.RawInstruction
	for i := 0; i < len(raw); i += 8 {
		program = append(program, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(raw[i:]), Jt: raw[i+2], Jf: raw[i+3], K: binary.LittleEndian.Uint32(raw[i+4:]),
		})
	}
	steps, whole := bpf.Disassemble(program)
	if !whole {
		t.Fatal("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(steps)
	if err != nil {
		t.Fatal(err)
	}
	return func(arch, number uint32, arg uint64) uint32 {
		// The library reads numbers as networks have them.
		words := []uint32{number, arch, 0, 0, uint32(arg), uint32(arg >> 32), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		var data []byte
		for _, w := range words {
			data = binary.BigEndian.AppendUint32(data, w)
		}
		n, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
}

// TestWaitsAlone: what waits for a function has one thread.
func TestWaitsAlone(t *testing.T) {
	const size = 40
	_, d, _ := openPool(t, size)
	defer func() { _ = d.Close() }()
	awaitPool(t, d, size)
	d.pool.mu.Lock()
	pids := make([]int, 0, size)
	for _, s := range d.pool.idle {
		pids = append(pids, s.box.info.PID)
	}
	d.pool.mu.Unlock()
	for _, pid := range pids {
		threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
		if err != nil || len(threads) != 1 {
			t.Errorf("the process %d has %d threads, %v", pid, len(threads), err)
		}
	}
	d.pool.drain()
}
