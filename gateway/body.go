package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// bodyGrace is how long a body may take whatever its size; beyond that it must come at leastRate bytes a second.
	bodyGrace = 30 * time.Second
	leastRate = 1 << 10
)

// clientBody is the body of a request that is queued. It remembers the error of the client's side, to tell it from the store's, and
// gives up on a client that sends next to nothing: no function's timeout runs yet.
type clientBody struct {
	r        io.Reader
	control  *http.ResponseController
	deadline time.Time
	bounded  bool
	err      error
}

func newClientBody(w http.ResponseWriter, r *http.Request) *clientBody {
	b := &clientBody{r: r.Body, control: http.NewResponseController(w), deadline: time.Now().Add(bodyGrace)}
	b.bounded = r.ContentLength != 0 && b.control.SetReadDeadline(b.deadline) == nil
	return b
}

// Read reads the body.
func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	switch {
	case err == nil:
		if b.bounded {
			b.deadline = b.deadline.Add(time.Duration(n) * time.Second / leastRate)
			_ = b.control.SetReadDeadline(b.deadline)
		}
	case errors.Is(err, io.EOF):
		if b.bounded {
			// What is read from here on is the next request, or the end of the connection.
			_ = b.control.SetReadDeadline(time.Time{})
		}
	default:
		b.err = err
	}
	return n, err
}

// fault says why the body could not be read.
func (b *clientBody) fault() error {
	if errors.Is(b.err, os.ErrDeadlineExceeded) {
		return fault.Wrap(fault.CodeInvalidRequest, b.err, "the request's body comes at less than %d bytes a second", leastRate).
			WithHint("send it faster, or in smaller parts")
	}
	return fault.Wrap(fault.CodeInvalidRequest, b.err, "the request's body cannot be read")
}
