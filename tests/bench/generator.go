package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// generator sends each request when it is due, on a connection that waits for nothing: a slow answer delays no other request. One thread does all
// of it, before anything else that the machine has to do, as if it ran on a machine of its own: its own lateness is no part of what it measures.
type generator struct {
	to      unix.SockaddrInet4
	request []byte
	slow    time.Duration

	epoll, timer int
	events       [256]unix.EpollEvent
	// conns are all connections by their socket, idle those that wait for a request, the one used last at the end.
	conns map[int]*openConn
	idle  []*openConn
}

// openConn is a connection.
type openConn struct {
	fd int
	// busy says that a request is under way, or is to be sent once the connection stands, which open says.
	busy, open bool
	shot       shot
	in         [8 << 10]byte
	got        int
}

// shot is a request; its phase's phaseTally takes the outcome.
type shot struct {
	due time.Time
	t   *phaseTally
}

type phaseTally struct {
	begun             time.Time
	ok, refused, lag  *hdrhistogram.Histogram
	offered, told     int
	lastBad           time.Duration
	answers, refusals int
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

func newGenerator(addr string, request []byte, slow time.Duration) (*generator, error) {
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	g := &generator{request: request, slow: slow, conns: map[int]*openConn{}}
	g.to.Port = to.Port
	copy(g.to.Addr[:], to.IP.To4())
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create", err)
	}
	if g.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return g, g.watch(g.timer, unix.EPOLLIN)
}

// close ends all connections.
func (g *generator) close() {
	for fd := range g.conns {
		_ = unix.Close(fd)
	}
	_ = unix.Close(g.timer)
	_ = unix.Close(g.epoll)
}

func (g *generator) watch(fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// run sends the requests of all phases, and returns once the last one is answered.
func (g *generator) run(phases []phase) ([]*phaseTally, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := hurry(); err != nil {
		fmt.Fprintln(os.Stderr, "the generator runs like anything else:", err)
	}
	var tallies []*phaseTally
	due := time.Now()
	for _, p := range phases {
		t := &phaseTally{begun: due, ok: newHistogram(), refused: newHistogram(), lag: newHistogram()}
		tallies = append(tallies, t)
		interval := time.Duration(float64(time.Second) / p.Rate)
		for end := due.Add(p.For); due.Before(end); due = due.Add(interval) {
			if err := g.until(due); err != nil {
				return nil, err
			}
			if err := g.send(shot{due, t}); err != nil {
				return nil, err
			}
			t.offered++
			_ = t.lag.RecordValue(max(1, time.Since(due).Microseconds()))
		}
	}
	for len(g.idle) < len(g.conns) {
		if err := g.turn(time.Minute); err != nil {
			return nil, err
		}
	}
	return tallies, nil
}

// hurry has the thread go before all others.
func hurry() error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	if err != nil {
		err = errors.Join(err, unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20))
	}
	return err
}

// until takes answers until the time has come.
func (g *generator) until(due time.Time) error {
	for {
		left := time.Until(due)
		if left <= 0 {
			return nil
		}
		if err := g.turn(left); err != nil {
			return err
		}
	}
}

// turn takes the answers that have come, or waits for one for so long.
func (g *generator) turn(wait time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(wait.Nanoseconds(), 1))}
	if err := unix.TimerfdSettime(g.timer, 0, &spec, nil); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	n, err := unix.EpollWait(g.epoll, g.events[:], -1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, e := range g.events[:max(n, 0)] {
		c := g.conns[int(e.Fd)]
		if c == nil {
			continue
		}
		if !c.open && e.Events&unix.EPOLLOUT != 0 {
			c.open = true
			if err := g.write(c); err != nil {
				return err
			}
		}
		if e.Events&^unix.EPOLLOUT != 0 {
			if err := g.read(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// send hands the request to the connection that became idle last, or to a new one.
func (g *generator) send(s shot) error {
	if n := len(g.idle); n > 0 {
		c := g.idle[n-1]
		g.idle = g.idle[:n-1]
		c.shot, c.busy = s, true
		return g.write(c)
	}
	if len(g.conns) == maxOpen {
		return fmt.Errorf("%d requests are under way at once: they are not answered", maxOpen)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	c := &openConn{fd: fd, shot: s, busy: true}
	g.conns[fd] = c
	if err := unix.Connect(fd, &g.to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	// Each change is told once: nothing is asked for again when the connection stands.
	return g.watch(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET)
}

func (g *generator) write(c *openConn) error {
	n, err := unix.Write(c.fd, g.request)
	if err == nil && n < len(g.request) {
		err = unix.EAGAIN
	}
	return os.NewSyscallError("write", err)
}

// read reads what has come. A connection that the server ends while it is idle is let go of.
func (g *generator) read(c *openConn) error {
	for {
		n, err := unix.Read(c.fd, c.in[c.got:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n > 0:
		case c.busy:
			return fmt.Errorf("a request was not answered: %w", errors.Join(err, errors.New("the connection ended")))
		default:
			g.drop(c)
			return nil
		}
		c.got += n
		a, length, err := parseAnswer(c.in[:c.got])
		switch {
		case err != nil:
			return err
		case length > 0 && length <= c.got:
			c.got, c.busy = 0, false
			g.idle = append(g.idle, c)
			g.count(c.shot, a)
		case max(length, c.got) >= len(c.in):
			return errors.New("an answer is too long")
		}
	}
}

func (g *generator) drop(c *openConn) {
	for i := range g.idle {
		if g.idle[i] == c {
			g.idle = append(g.idle[:i], g.idle[i+1:]...)
			break
		}
	}
	delete(g.conns, c.fd)
	_ = unix.Close(c.fd)
}

// count counts an answer.
func (g *generator) count(s shot, a answer) {
	took := time.Since(s.due)
	t := s.t
	h := t.ok
	if a.status == "200" {
		t.answers++
	} else {
		h = t.refused
		t.refusals++
		if a.retryAfter {
			t.told++
		}
	}
	_ = h.RecordValue(max(1, took.Microseconds()))
	if a.status != "200" || took > g.slow {
		t.lastBad = max(t.lastBad, s.due.Sub(t.begun))
	}
}

// answer is what matters of a response.
type answer struct {
	status     string
	retryAfter bool
}

// parseAnswer reads a response with a Content-Length, which with its head is so long; 0 where the head is not whole.
func parseAnswer(b []byte) (a answer, length int, err error) {
	head, _, whole := bytes.Cut(b, []byte("\r\n\r\n"))
	if !whole {
		return a, 0, nil
	}
	lines := strings.Split(string(head), "\r\n")
	if len(lines[0]) < len("HTTP/1.1 200") {
		return a, 0, fmt.Errorf("answer %q", lines[0])
	}
	if a.status = lines[0][9:12]; a.status != "200" && a.status != "503" {
		return a, 0, fmt.Errorf("answer %s", a.status)
	}
	body := -1
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case strings.EqualFold(name, "Retry-After"):
			a.retryAfter = true
		case strings.EqualFold(name, "Content-Length"):
			if body, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return a, 0, err
			}
		}
	}
	if body < 0 {
		return a, 0, errors.New("an answer without Content-Length")
	}
	return a, len(head) + 4 + body, nil
}
