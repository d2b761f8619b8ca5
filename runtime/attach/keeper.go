//go:build linux

package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

const (
	// keeperTime bounds the keeper's first word and an answer.
	keeperTime = 10 * time.Second
	// keeperScore makes the keeper nearly the last to go when the node runs out of memory.
	keeperScore = "-998"
)

// Keeper is a connection to the process that is the parent of sandboxes' inits, takes their output and notes their ends. It outlives this
// process, and ends by itself once no init is left and nobody is connected.
type Keeper struct {
	conn *net.UnixConn
	gone chan struct{}
	// turn is held by the one who asks.
	turn sync.Mutex

	mu      sync.Mutex
	answers chan []byte
	// late is how many answers will come that nobody waits for any more.
	late int
}

// StartKeeper starts a keeper that listens at path.
func StartKeeper(program *Program, path string) (_ *Keeper, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	listener, err := l.File()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	ours, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(program.path())
	cmd.Args = []string{"tatami-keeper", path}
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=1"}
	// Nothing at the descriptor that would have the init make a user namespace.
	cmd.ExtraFiles = []*os.File{listener, theirs, nil}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte(keeperScore), 0)
	// Where it ends at once, the connection must too.
	theirs.Close()
	// Only to take its exit status when it ends, which may be long after this process's work: nobody waits for this.
	go func() { _ = cmd.Wait() }()
	return meetKeeper(ours)
}

// ConnectKeeper connects to the keeper that listens at path, of this or an earlier run.
func ConnectKeeper(path string) (*Keeper, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return meetKeeper(conn)
}

func meetKeeper(conn *net.UnixConn) (*Keeper, error) {
	_ = conn.SetReadDeadline(time.Now().Add(keeperTime))
	b := make([]byte, wire.MaxSpawn)
	n, err := conn.Read(b)
	if err == nil && string(b[:n]) != wire.KeeperHello {
		err = fmt.Errorf("it says %q", b[:n])
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("meet the keeper: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	k := &Keeper{conn: conn, gone: make(chan struct{}), answers: make(chan []byte, 1)}
	go k.read()
	return k, nil
}

// read ends with the connection, which Close ends.
func (k *Keeper) read() {
	defer close(k.gone)
	for {
		b := make([]byte, wire.MaxSpawn)
		n, err := k.conn.Read(b)
		if err != nil || n == 0 {
			return
		}
		if !k.answer(b[:n]) {
			return
		}
	}
}

// answer passes an answer on; false where nobody asked.
func (k *Keeper) answer(b []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.late > 0 {
		k.late--
		return true
	}
	select {
	case k.answers <- b:
		return true
	default:
		return false
	}
}

// giveUp returns the answer that came at the last moment; nil: when it comes, it is let go.
func (k *Keeper) giveUp() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case b := <-k.answers:
		return b
	default:
		k.late++
		return nil
	}
}

// Gone is closed when the connection has ended: by Close, or since the keeper has.
func (k *Keeper) Gone() <-chan struct{} { return k.gone }

// Close ends the connection. The keeper and what it keeps go on.
func (k *Keeper) Close() {
	k.conn.Close()
	<-k.gone
}

// Spawn has the keeper start an init in namespaces of its own, and returns its process id and the connection to it. cgroup, where it is not
// nil, is the directory of the cgroup that the init is started in.
func (k *Keeper) Spawn(ctx context.Context, s wire.Spawn, cgroup *os.File) (pid int, _ *net.UnixConn, err error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			ours.Close()
		}
	}()
	defer theirs.Close()
	fds := []int{int(theirs.Fd())}
	if s.Cgroup = cgroup != nil; s.Cgroup {
		fds = append(fds, int(cgroup.Fd()))
	}
	k.turn.Lock()
	defer k.turn.Unlock()
	if _, _, err := k.conn.WriteMsgUnix(s.Encode(), unix.UnixRights(fds...), nil); err != nil {
		return 0, nil, fmt.Errorf("ask the keeper: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, keeperTime)
	defer cancel()
	var answer []byte
	select {
	case answer = <-k.answers:
	case <-k.gone:
		return 0, nil, errors.New("the keeper has ended")
	case <-ctx.Done():
		// An init that it starts later ends at once: its connection is closed.
		if answer = k.giveUp(); answer == nil {
			return 0, nil, fmt.Errorf("the keeper does not answer: %w", ctx.Err())
		}
	}
	spawned, err := wire.DecodeSpawned(answer)
	if err != nil {
		return 0, nil, err
	}
	if spawned.Why != "" {
		return 0, nil, errors.New(spawned.Why)
	}
	return int(spawned.PID), ours, nil
}

// socketPair returns a connection and the file of its other end.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		theirs.Close()
		return nil, nil, fmt.Errorf("a socket pair is a %T", conn)
	}
	return unixConn, theirs, nil
}
