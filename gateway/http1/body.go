package http1

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// mostUnread is how much of a body that nobody wanted is read to keep the connection.
	mostUnread = 256 << 10
	// unreadPatience is how long that may take.
	unreadPatience = time.Second
)

// body is a request's body of a given length.
type body struct {
	c *conn

	mu     sync.Mutex
	left   int64
	closed bool
	err    error
}

// Read reads the body. It returns io.EOF together with the last bytes.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil:
		return 0, b.err
	}
	return b.read(p)
}

// read reads; b.mu is held.
func (b *body) read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	if w := b.c.work; w.at < w.end {
		n = copy(p, w.unread())
		w.at += n
	} else {
		n, err = b.c.sock.Read(p)
	}
	b.left -= int64(n)
	switch {
	case b.left == 0:
		err = io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// Close ends the reading. What is left is read once the answer is out, if it is not much.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// discard reads what is left, if it is little and comes soon, and reports whether the next request is behind it.
func (b *body) discard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 || errors.Is(b.err, io.ErrUnexpectedEOF) {
		// Where the client ended in the middle, nothing follows.
		return true
	}
	if b.left >= mostUnread || b.err != nil {
		return false
	}
	if !b.c.timed.Load() {
		_ = b.c.SetReadDeadline(time.Now().Add(unreadPatience))
	}
	var skip [4 << 10]byte
	for b.left > 0 {
		if _, err := b.read(skip[:]); err != nil && b.left > 0 {
			return false
		}
	}
	return true
}
