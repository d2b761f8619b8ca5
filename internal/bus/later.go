package bus

import (
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
}

// errUnanswered is the error of a message on which the server did not say a word in time: it may be stored or not.
var errUnanswered = fmt.Errorf("the server has not said that the message is stored: %w", nats.ErrTimeout)

func newLater(nc *nats.Conn) (*later, error) {
	l := &later{nc: nc, prefix: nats.NewInbox() + ".", waiting: map[uint64]promise{}, stop: make(chan struct{}), done: make(chan struct{})}
	if _, err := nc.Subscribe(l.prefix+"*", l.answered); err != nil {
		return nil, err
	}
	go l.watch()
	return l, nil
}

// store sends the message; then is called once.
func (l *later) store(m *nats.Msg, then func(uint64, error)) {
	n, ok := l.expect(then)
	if !ok {
		then(0, nats.ErrConnectionClosed)
		return
	}
	m.Reply = l.prefix + strconv.FormatUint(n, 10)
	if err := l.nc.PublishMsg(m); err != nil {
		if p, ok := l.take(n); ok {
			p.then(0, err)
		}
	}
}

// expect has then called with the answer of the returned number. False: nothing is stored any more.
func (l *later) expect(then func(uint64, error)) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false
	}
	l.last++
	l.waiting[l.last] = promise{then, time.Now().Add(storeTimeout)}
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
	if p, ok := l.take(n); ok {
		p.then(wordOf(m))
	}
}

// watch ends what got no answer.
func (l *later) watch() {
	defer close(l.done)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case now := <-t.C:
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
