package bus

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// later stores messages for callers that do not wait: the server's words on all of them come on one subscription.
type later struct {
	nc     *nats.Conn
	prefix string
	// patience is how long a message is sent again that no stream took, because its leader is being elected.
	patience time.Duration

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]promise
	closed  bool

	stop, done chan struct{}
}

// promise is what is to be told once the server has stored a message.
type promise struct {
	then func(sequence uint64, err error)
	late time.Time
	// msg is sent again while nobody takes it, until a time; unheard says that nobody did.
	msg     *nats.Msg
	until   time.Time
	unheard bool
}

// errUnanswered is the error of a message on which the server did not say a word in time: it may be stored or not.
var errUnanswered = fmt.Errorf("the server has not said that the message is stored: %w", nats.ErrTimeout)

func newLater(nc *nats.Conn, patience time.Duration) (*later, error) {
	l := &later{nc: nc, patience: patience, prefix: nats.NewInbox() + ".", waiting: map[uint64]promise{}, stop: make(chan struct{}), done: make(chan struct{})}
	if _, err := nc.Subscribe(l.prefix+"*", l.answered); err != nil {
		return nil, err
	}
	go l.watch()
	return l, nil
}

// store sends the message; then is called once.
func (l *later) store(m *nats.Msg, then func(uint64, error)) {
	n, ok := l.expect(m, then)
	if !ok {
		then(0, nats.ErrConnectionClosed)
		return
	}
	l.send(n, m)
}

func (l *later) send(n uint64, m *nats.Msg) {
	m.Reply = l.prefix + strconv.FormatUint(n, 10)
	if err := l.nc.PublishMsg(m); err != nil {
		if p, ok := l.take(n); ok {
			p.then(0, err)
		}
	}
}

// expect has then called with the answer of the returned number. False: nothing is stored any more.
func (l *later) expect(m *nats.Msg, then func(uint64, error)) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false
	}
	l.last++
	p := promise{then: then, late: time.Now().Add(storeTimeout)}
	if l.patience > 0 {
		p.msg, p.until = m, time.Now().Add(l.patience)
	}
	l.waiting[l.last] = p
	return l.last, true
}

func (l *later) take(n uint64) (promise, bool) {
	l.mu.Lock()
	p, ok := l.waiting[n]
	delete(l.waiting, n)
	l.mu.Unlock()
	return p, ok
}

func (l *later) answered(m *nats.Msg) {
	n, err := strconv.ParseUint(m.Subject[len(l.prefix):], 10, 64)
	if err != nil {
		return
	}
	seq, err := wordOf(m)
	if errors.Is(err, jetstream.ErrNoStreamResponse) && l.again(n) {
		return
	}
	if p, ok := l.take(n); ok {
		p.then(seq, err)
	}
}

// again keeps a message that no stream took, to be sent again soon; false where that was tried for long enough.
func (l *later) again(n uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.waiting[n]
	if now := time.Now(); !ok || l.closed || !now.Before(p.until) {
		return false
	}
	p.unheard, p.late = true, p.until
	l.waiting[n] = p
	return true
}

// sendUnheard sends again what no stream took.
func (l *later) sendUnheard() {
	l.mu.Lock()
	unheard := map[uint64]*nats.Msg{}
	for n, p := range l.waiting {
		if p.unheard {
			unheard[n] = p.msg
			p.unheard, p.late = false, time.Now().Add(storeTimeout)
			l.waiting[n] = p
		}
	}
	l.mu.Unlock()
	for n, m := range unheard {
		l.send(n, m)
	}
}

// watch ends what got no answer.
func (l *later) watch() {
	defer close(l.done)
	every := time.Second
	if l.patience > 0 {
		every = noStreamWait
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case now := <-t.C:
			l.sendUnheard()
			l.fail(errUnanswered, func(p promise) bool { return now.After(p.late) })
		}
	}
}

// fail ends those that are to be.
func (l *later) fail(err error, which func(promise) bool) {
	l.mu.Lock()
	var gone []promise
	for n, p := range l.waiting {
		if which(p) {
			gone = append(gone, p)
			delete(l.waiting, n)
		}
	}
	l.mu.Unlock()
	for _, p := range gone {
		p.then(0, err)
	}
}

// close ends all that waits; what is stored from then on fails.
func (l *later) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	<-l.done
	l.fail(nats.ErrConnectionClosed, func(promise) bool { return true })
}

// wordOf reads the server's answer to a message that was to be stored.
func wordOf(m *nats.Msg) (uint64, error) {
	if seq, ok := storedAs(m.Data); ok {
		return seq, nil
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return 0, jetstream.ErrNoStreamResponse
	}
	return explained(m.Data)
}
