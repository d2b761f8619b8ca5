//go:build linux

package containerd

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// stepTime is the pause between the first tries. Where more wait at once each takes its time, up to stepsMost times as long.
	stepTime  = 250 * time.Microsecond
	stepsMost = 8
	// felt is the part of the time that has passed, one of so many, which the pauses grow to, slowPause at most: so much more on top of it is
	// not felt.
	felt      = 50
	slowPause = 50 * time.Millisecond
	// earlyTries are the parts that the time is cut into after which a function is expected to listen: each but the last lateTries is one pause.
	earlyTries, lateTries = 8, 2
	// forgotten is the part of what a start took longer than expected, one of so many, that the expected time grows by.
	forgotten = 8
	// finePause is the longest pause that the kernel's timer measures, set anew when the pauses are shorter, or have grown by one part in rearmed.
	finePause = 4 * time.Millisecond
	rearmed   = 8
	// otherFamily is how many tries over IPv4 come to one over IPv6.
	otherFamily = 8
)

// AwaitListening returns once the function's port takes connections.
func (b *box) AwaitListening(ctx context.Context) error {
	b.mu.Lock()
	netns, e := b.netns, b.ear
	b.ear = nil
	b.mu.Unlock()
	defer e.close()
	if netns == nil {
		return fault.New(fault.CodeUnavailable, "the sandbox %s does not run", b.info.ID)
	}
	// One that has listened all the time has missed nothing.
	heard := e.tells()
	if e == nil {
		var err error
		if e, err = b.newEar(ctx, netns); err != nil {
			return err
		}
		defer e.close()
	}
	p := probe{sockets: b.d.sockets, netns: netns, port: b.port, fds: [2]int{e.give(), -1}}
	defer p.close()
	waiting := min(b.d.awaited.Add(1), stepsMost)
	defer b.d.awaited.Add(-1)
	pause, err := newPacer(time.Duration(waiting)*stepTime, b.listens.expected())
	if err != nil {
		return err
	}
	defer pause.close()
	for try := 1; ; try++ {
		if !heard || try > 1 {
			if open := p.try(ctx, try%otherFamily == 0); open >= 0 {
				return b.listening(open, pause)
			}
		}
		told, err := pause.wait(ctx, b.done, e.began)
		if err != nil {
			return err
		}
		if told {
			// Most listen on both families, some on one.
			if open := p.try(ctx, false); open >= 0 {
				return b.listening(open, pause)
			}
			if open := p.try(ctx, true); open >= 0 {
				return b.listening(open, pause)
			}
		}
	}
}

// listening notes that the function takes connections, and keeps the first one.
func (b *box) listening(open int, since *pacer) error {
	b.listens.took(time.Since(since.begun))
	b.served()
	return b.keepFirst(open, firstTime)
}

// ear hears of processes of a sandbox that begin to listen.
type ear struct {
	// socket, of the sandbox's network namespace, is for the first connection; -1: somebody has it.
	socket int
	// began tells; nil where nobody can.
	began <-chan struct{}
	end   func()
}

// newEar makes one. It takes a thread into the sandbox's network namespace.
func (b *box) newEar(ctx context.Context, netns *os.File) (*ear, error) {
	fd, err := b.d.sockets.socket(ctx, netns, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	e := &ear{socket: fd}
	// gVisor's processes listen in a kernel of their own.
	if w := b.d.listeners.Load(); w != nil && !b.gvisor {
		if e.began, e.end, err = w.Hear(fd); err != nil {
			e.began, e.end = nil, nil
		}
	}
	return e, nil
}

// dropEar has nobody hear any more.
func (b *box) dropEar() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ear.close()
	b.ear = nil
}

func (e *ear) tells() bool { return e != nil && e.began != nil }

// give gives the socket away.
func (e *ear) give() int {
	fd := e.socket
	e.socket = -1
	return fd
}

func (e *ear) close() {
	if e == nil {
		return
	}
	if e.end != nil {
		e.end()
	}
	if e.socket >= 0 {
		unix.Close(e.give())
	}
}

// probe tries to connect, again and again with the same two sockets. To make one takes a thread into the sandbox's network namespace.
type probe struct {
	sockets *socketMaker
	netns   *os.File
	port    int
	// fds are the sockets of IPv4 and IPv6; -1: none.
	fds [2]int
}

// try returns a connection if somebody listens, on one of the two families; -1: nobody.
func (p *probe) try(ctx context.Context, six bool) int {
	i, to := 0, unix.Sockaddr(&unix.SockaddrInet4{Port: p.port, Addr: [4]byte{127, 0, 0, 1}})
	if six {
		i, to = 1, &unix.SockaddrInet6{Port: p.port, Addr: [16]byte{15: 1}}
	}
	if p.fds[i] < 0 {
		// A kernel may lack the other family.
		family := unix.AF_INET
		if six {
			family = unix.AF_INET6
		}
		if p.fds[i], _ = p.sockets.socket(ctx, p.netns, family); p.fds[i] < 0 {
			return -1
		}
	}
	// After a refusal the socket may try again; a try that is under way has the next one say EALREADY.
	err := unix.Connect(p.fds[i], to)
	if errors.Is(err, unix.EINPROGRESS) {
		// It says so even where the answer has come already, which is the rule here; asked once more it tells.
		err = unix.Connect(p.fds[i], to)
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		return -1
	}
	fd := p.fds[i]
	p.fds[i] = -1
	return fd
}

func (p *probe) close() {
	for _, fd := range p.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// listenTime is how long the processes of an artifact take before they listen: about the shortest time of late. A nil one knows none.
type listenTime struct{ shortest atomic.Int64 }

// expected is zero where that is not known.
func (l *listenTime) expected() time.Duration {
	if l == nil {
		return 0
	}
	return time.Duration(l.shortest.Load())
}

// took notes the time of one more. Of two at once one may go unnoted.
func (l *listenTime) took(now time.Duration) {
	if l == nil {
		return
	}
	if before := l.expected(); before > 0 && now > before {
		now = before + (now-before)/forgotten
	}
	l.shortest.Store(int64(now))
}

// pacer spaces tries. Its short pauses are a timer's of the kernel: the Go runtime's own are never shorter than a millisecond.
type pacer struct {
	begun time.Time
	timer *os.File
	// step is the shortest pause, every what the timer is set to.
	step, every time.Duration
	// expected is when the last try is expected; zero: that is not known.
	expected time.Duration
}

func newPacer(step, expected time.Duration) (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	p := &pacer{begun: time.Now(), timer: os.NewFile(uintptr(fd), "timer"), step: step, expected: expected}
	if err := p.set(step); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pacer) set(every time.Duration) error {
	raw, err := p.timer.SyscallConn()
	if err != nil {
		return err
	}
	at := unix.NsecToTimespec(int64(every))
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Interval: at, Value: at}, nil)
	})
	p.every = every
	return errors.Join(err, os.NewSyscallError("timerfd_settime", inner))
}

func (p *pacer) close() { p.timer.Close() }

// after is the pause when so much time has passed. Each try takes the processor from the function for a moment, often enough where both share one:
// long before it is expected to listen there are few.
func (p *pacer) after(passed time.Duration) time.Duration {
	if early := p.expected / earlyTries * (earlyTries - lateTries); passed < early {
		return max(min(p.expected/earlyTries, early-passed, slowPause), p.step)
	}
	return min(max(passed/felt, p.step), slowPause)
}

// wait pauses; began, where it is not nil, tells when that is over. It returns an error when ctx has ended or the process has, told by done.
func (p *pacer) wait(ctx context.Context, done, began <-chan struct{}) (told bool, err error) {
	pause := p.after(time.Since(p.begun))
	if began != nil {
		// Asking takes the function time. It is asked only since a moment may get lost where very many are told.
		pause = slowPause
	}
	if pause <= finePause {
		return false, p.tick(ctx, done, pause)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-began:
		return true, nil
	case <-done:
		return false, errEnded
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// tick waits for the timer, set to about that pause.
func (p *pacer) tick(ctx context.Context, done <-chan struct{}, pause time.Duration) error {
	if pause < p.every || pause >= p.every+p.every/rearmed {
		if err := p.set(pause); err != nil {
			return err
		}
	}
	var ticks [8]byte
	if _, err := p.timer.Read(ticks[:]); err != nil {
		return err
	}
	select {
	case <-done:
		return errEnded
	default:
		return ctx.Err()
	}
}

var errEnded = errors.New("the process has ended")
