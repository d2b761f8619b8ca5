package remote

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

// listening reads what a worker says, and fails once it missed bus.SessionMissed signs of life in a row. It counts those that it waited for itself: what
// came while this process stood still is there when it goes on.
type listening struct {
	conn net.Conn
	// from is a reader of conn.
	from io.Reader
}

// Read reads what there is, or waits for it.
func (l *listening) Read(b []byte) (int, error) {
	for missed := 1; ; missed++ {
		_ = l.conn.SetReadDeadline(time.Now().Add(bus.SessionPing))
		n, err := l.from.Read(b)
		if n > 0 || missed == bus.SessionMissed || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}
