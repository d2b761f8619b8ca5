//go:build linux

package listens

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	// beganListening is the kernel's BPF_SOCK_OPS_TCP_LISTEN_CB, which its struct bpf_sock_ops begins with.
	beganListening = 11
	// ringSize is how many bytes of what nobody has read yet the kernel keeps: some thousands of moments.
	ringSize = 64 << 10
	// cookieSize is the size of a moment: the namespace's cookie.
	cookieSize = 8
	// mostHeard is how many namespaces may be heard at a time: more starts than a node has under way.
	mostHeard = 4096
)

// Watch hears of every process below a cgroup that begins to listen. Close ends it.
type Watch struct {
	attached link.Link
	program  *ebpf.Program
	// wanted has the cookies that somebody hears of.
	wanted, moments *ebpf.Map
	reader          *ringbuf.Reader

	mu    sync.Mutex
	heard map[uint64]chan struct{}
}

// Open attaches a watch to the directory of a cgroup of version 2. Run must be called.
func Open(cgroup string) (_ *Watch, err error) {
	w := &Watch{heard: map[uint64]chan struct{}{}}
	defer func() {
		if err != nil {
			_ = w.Close()
		}
	}()
	if w.moments, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringSize}); err != nil {
		return nil, fmt.Errorf("listens: make the ring: %w", err)
	}
	if w.wanted, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: cookieSize, ValueSize: 1, MaxEntries: mostHeard}); err != nil {
		return nil, fmt.Errorf("listens: make the table: %w", err)
	}
	program := &ebpf.ProgramSpec{Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, Instructions: tell(w.wanted, w.moments)}
	if w.program, err = ebpf.NewProgram(program); err != nil {
		return nil, fmt.Errorf("listens: load the program: %w", err)
	}
	if w.reader, err = ringbuf.NewReader(w.moments); err != nil {
		return nil, fmt.Errorf("listens: read the ring: %w", err)
	}
	w.attached, err = link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: w.program})
	if err != nil {
		return nil, fmt.Errorf("listens: attach to %s: %w", cgroup, err)
	}
	return w, nil
}

// tell is the program: of a socket that began to listen it writes its network namespace's cookie into the ring, if that is wanted. Others cost
// whoever listens, and nobody who hears: a function may begin to listen as often as it likes.
func tell(wanted, ring *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.JNE.Imm(asm.R2, beganListening, "out"),
		asm.FnGetNetnsCookie.Call(),
		asm.StoreMem(asm.RFP, -cookieSize, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, wanted.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -cookieSize),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMapPtr(asm.R1, ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -cookieSize),
		asm.Mov.Imm(asm.R3, cookieSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		// The kernel goes on as if nobody had been asked.
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}
}

// Run hands on what the kernel tells, until Close.
func (w *Watch) Run() error {
	var moment ringbuf.Record
	for {
		if err := w.reader.ReadInto(&moment); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("listens: %w", err)
		}
		if len(moment.RawSample) >= cookieSize {
			w.tell(binary.NativeEndian.Uint64(moment.RawSample))
		}
	}
}

func (w *Watch) tell(cookie uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.heard[cookie]; c != nil {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Hear returns what is sent to each time that a process of the network namespace which the socket was made in begins to listen, whatever the
// port, until end is called. A moment that nobody has taken yet stands for those that follow it; one before Hear is not told. One at a time
// may hear of a namespace, and of 4,096 namespaces at a time.
func (w *Watch) Hear(socket int) (moments <-chan struct{}, end func(), err error) {
	cookie, err := cookieOf(socket)
	if err != nil {
		return nil, nil, err
	}
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.wanted.Put(cookie, uint8(1)); err != nil {
		return nil, nil, fmt.Errorf("listens: %w", err)
	}
	w.heard[cookie] = c
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.heard[cookie] == c {
			delete(w.heard, cookie)
			// What is told all the same, of nobody's namespace, is let be.
			_ = w.wanted.Delete(cookie)
		}
	}, nil
}

// cookieOf is the number, never used twice, of the network namespace that a socket was made in.
func cookieOf(socket int) (cookie uint64, err error) {
	size := uint32(unsafe.Sizeof(cookie))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE,
		uintptr(unsafe.Pointer(&cookie)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0, os.NewSyscallError("getsockopt", e)
	}
	return cookie, nil
}

// Close detaches the program and ends Run.
func (w *Watch) Close() (err error) {
	if w.attached != nil {
		err = errors.Join(err, w.attached.Close())
	}
	if w.reader != nil {
		err = errors.Join(err, w.reader.Close())
	}
	if w.program != nil {
		err = errors.Join(err, w.program.Close())
	}
	for _, m := range []*ebpf.Map{w.wanted, w.moments} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	return err
}
