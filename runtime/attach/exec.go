//go:build linux

package attach

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// everyNamespace is what a further process of a sandbox joins.
const everyNamespace = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Join starts the init once more, in the namespaces of the sandbox of the process: a child of this process that waits for its setup on the
// connection that is returned. files are its standard descriptors. It is in none of the sandbox's cgroups yet. users, where it is not nil, is
// the sandbox's user namespace: the child is its root then.
func Join(program *Program, process *os.File, files [3]*os.File, users *os.File) (*os.Process, *net.UnixConn, error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	// The init enters it itself: a process of many threads cannot. Where there is none, no descriptor of another's is taken for one.
	const none = ^uintptr(0)
	given := []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd(), theirs.Fd(), none, none}
	if users != nil {
		given[4] = users.Fd()
	}
	pid := 0
	err = onLostThread(func() error {
		// A mount namespace can be joined by a thread only that has root and working directory for itself.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := join(process, everyNamespace); err != nil {
			return err
		}
		var err error
		pid, err = syscall.ForkExec(program.path(), []string{"init"}, &syscall.ProcAttr{
			Dir: "/", Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Files: given,
		})
		if err != nil {
			return fmt.Errorf("start the init: %w", err)
		}
		return nil
	})
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	child, err := os.FindProcess(pid)
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	return child, ours, nil
}
