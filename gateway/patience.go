package gateway

import (
	"io"
	"net/http"
	"time"
)

// patient writes an answer of the platform's own: each write may take so long as within, so that a client that reads nothing holds nothing.
// The deadline of the last write covers what the server sends after the handler; bounded lifts it from the connection's next request.
type patient struct {
	w       io.Writer
	control *http.ResponseController
	within  time.Duration
}

func newPatient(w http.ResponseWriter, within time.Duration) patient {
	return patient{w, http.NewResponseController(w), within}
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.within))
	return p.w.Write(b)
}
