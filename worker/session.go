package worker

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// session is a gateway's connection for slots. Its own goroutine alone touches held.
type session struct {
	id   string
	conn net.Conn
	held map[functions.InstanceID]int

	mu      sync.Mutex
	over    bool
	tunnels map[net.Conn]struct{}

	// words guards out, which is to be written; who writes holds voice. Recalled tells that a recall is to be.
	words, voice sync.Mutex
	out, spare   []byte
	recalled     chan struct{}
}

func newSession(id string, conn net.Conn) *session {
	return &session{id: id, conn: conn, held: map[functions.InstanceID]int{}, tunnels: map[net.Conn]struct{}{}, recalled: make(chan struct{}, 1)}
}

// end closes the session's connections; its goroutine gives back what it holds.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	_ = s.conn.Close()
	for c := range s.tunnels {
		_ = c.Close()
	}
}

// join makes the connections end with the session; false when it has ended.
func (s *session) join(conns ...net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		s.tunnels[c] = struct{}{}
	}
	return !s.over
}

func (s *session) leave(conns ...net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		delete(s.tunnels, c)
	}
}

// say has an answer written by the next flush.
func (s *session) say(l bus.SlotLine) {
	s.words.Lock()
	defer s.words.Unlock()
	s.out = l.Append(s.out)
}

// grant has it written that a slot was taken, and whether it may be kept. A recall comes behind the word that it takes back.
func (s *session) grant(sequence uint64, in *instance, alone bool) {
	s.words.Lock()
	defer s.words.Unlock()
	answer := bus.SlotLine{Op: bus.SlotGranted, Sequence: sequence}
	if in.mayKeep(alone) {
		answer.Text = bus.SlotKeep
	}
	s.out = answer.Append(s.out)
}

// recall asks the gateway for what it keeps of the instance's slots. It waits for nothing.
func (s *session) recall(inst functions.InstanceID) {
	s.say(bus.SlotLine{Op: bus.SlotRelease, Text: string(inst)})
	select {
	case s.recalled <- struct{}{}:
	default:
	}
}

// flush writes what is to be said.
func (s *session) flush() error {
	s.voice.Lock()
	defer s.voice.Unlock()
	s.words.Lock()
	out := s.out
	s.out = s.spare[:0]
	s.words.Unlock()
	var err error
	if len(out) > 0 {
		_ = s.conn.SetWriteDeadline(time.Now().Add(writePatience))
		_, err = s.conn.Write(out)
	}
	s.words.Lock()
	s.spare = out
	s.words.Unlock()
	return err
}

// calls writes recalls until over is closed.
func (s *session) calls(over <-chan struct{}) {
	for {
		select {
		case <-s.recalled:
			if s.flush() != nil {
				_ = s.conn.Close()
			}
		case <-over:
			return
		}
	}
}

func (l *listener) session(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	conn, br, err := takeOver(w, r, bus.UpgradeSession)
	if err != nil {
		l.refuse(w, err)
		return
	}
	s := newSession(id, conn)
	l.mu.Lock()
	closed := l.closed
	l.sessions[id] = s
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.sessions, id)
		l.mu.Unlock()
		s.end()
		held := 0
		for inst, n := range s.held {
			for range n {
				l.w.Release(l.w.cfg.Node, inst)
			}
			held += n
		}
		l.log.Info("a gateway's session has ended", "remote", conn.RemoteAddr().String(), "slots", held)
	}()
	if closed {
		return
	}
	// The gateway may name the session as soon as it knows it.
	if err := switchTo(conn, bus.UpgradeSession, bus.HeaderSession+": "+id+"\r\n"); err != nil {
		l.refuse(w, err)
		return
	}
	over := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() { s.calls(over) })
	err = l.talk(s, br)
	close(over)
	_ = conn.Close()
	calls.Wait()
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		l.log.Warn("a gateway's session broke", "remote", conn.RemoteAddr().String(), "err", err)
	}
}

// talk answers the session's lines until it ends; it returns why.
func (l *listener) talk(s *session, br *bufio.Reader) error {
	in := bufio.NewReaderSize(br, 16*bus.MaxSlotLine)
	for {
		if in.Buffered() == 0 {
			if err := s.flush(); err != nil {
				return err
			}
			_ = s.conn.SetReadDeadline(time.Now().Add(bus.SessionSilence))
		}
		b, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line, err := bus.ParseSlotLine(b)
		if err != nil {
			return err
		}
		if !l.take(s, line) {
			return fault.New(fault.CodeInvalidRequest, "%q is no question", b)
		}
	}
}

// take does what a line says; false for one that says nothing.
func (l *listener) take(s *session, line bus.SlotLine) bool {
	inst := functions.InstanceID(line.Text)
	switch line.Op {
	case bus.SlotAdmit:
		// A call comes; a sign of life is none, and what is given back was one.
		l.w.cfg.Awake.Touch()
		in, err := l.w.admit(inst)
		if err != nil {
			s.say(bus.SlotLine{Op: bus.SlotRefused, Sequence: line.Sequence, Text: err.Error()})
			break
		}
		s.held[inst]++
		s.grant(line.Sequence, in, l.alone())
	case bus.SlotRelease:
		if s.held[inst] == 0 {
			l.log.Error("a gateway gave back a slot that it does not hold", "inst", inst)
			break
		}
		if s.held[inst]--; s.held[inst] == 0 {
			delete(s.held, inst)
		}
		l.w.Release(l.w.cfg.Node, inst)
	case bus.SlotPing:
		s.say(bus.SlotLine{Op: bus.SlotGranted, Sequence: line.Sequence})
	default:
		return false
	}
	return true
}
