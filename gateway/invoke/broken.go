package invoke

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// broken reports whether err is the end of a connection, as opposed to an answer that makes no sense.
func broken(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, net.ErrClosed) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op)
}
