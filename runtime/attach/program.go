//go:build linux

package attach

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Program is the init, in a file that has no name and that nobody can write to: a process inside a sandbox that gets hold of it cannot
// change what the next one runs.
type Program struct{ file *os.File }

// programName is what the kernel calls the file.
const programName = "tatami-init"

// IsInit reports whether the process is an init still, and not what it is to become.
func IsInit(pid int) bool {
	file, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(file, "/memfd:"+programName)
}

// aboveFiles is more than the descriptors that a started process is given: it names the program by a descriptor's number, which none of them may
// have taken before it is run.
const aboveFiles = 64

// NewProgram makes it; ErrNoInit where the init was not built in.
func NewProgram() (*Program, error) {
	raw, err := Init()
	if err != nil {
		return nil, err
	}
	return programOf(raw)
}

func programOf(raw []byte) (*Program, error) {
	low, err := unix.MemfdCreate(programName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(low)
	fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, aboveFiles)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &Program{os.NewFile(uintptr(fd), programName)}
	if _, err := p.file.Write(raw); err != nil {
		p.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(p.file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		p.Close()
		return nil, os.NewSyscallError("seal the init", err)
	}
	return p, nil
}

// path is valid in a process that this one starts, where /proc is mounted.
func (p *Program) path() string { return fmt.Sprintf("/proc/self/fd/%d", p.file.Fd()) }

// Close gives the file back; what runs of it goes on.
func (p *Program) Close() { p.file.Close() }
