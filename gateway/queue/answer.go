package queue

import (
	"io"

	"github.com/tatami-faas/tatami/functions"
)

// answerBody takes the body of an answer that is to be kept: what is small stays in memory, the rest goes to the object store while it comes.
// It is used by one goroutine.
type answerBody struct {
	q    *Queue
	name string
	head []byte
	// pipe feeds the object store from where the body is too long for memory; done brings what became of it.
	pipe   *io.PipeWriter
	done   chan spilled
	result spilled
	closed bool
	// kept says that a record names the body.
	kept bool
}

type spilled struct {
	ref *functions.BodyRef
	err error
}

func (q *Queue) newAnswer(name string) *answerBody { return &answerBody{q: q, name: name} }

// Write takes a part of the body.
func (a *answerBody) Write(p []byte) (int, error) {
	if a.pipe != nil {
		return a.pipe.Write(p)
	}
	if int64(len(a.head)+len(p)) <= a.q.cfg.InlineBody {
		a.head = append(a.head, p...)
		return len(p), nil
	}
	r, w := io.Pipe()
	a.pipe, a.done = w, make(chan spilled, 1)
	go func() {
		ref, err := a.q.spill(a.q.alive, a.name, &claiming{r, a.q.bus}, a.q.cfg.MaxResult)
		// A writer must not wait for a reader that is gone.
		_ = r.CloseWithError(err)
		a.done <- spilled{ref, err}
	}()
	if _, err := w.Write(a.head); err != nil {
		return 0, err
	}
	a.head = nil
	return w.Write(p)
}

// close ends the body and returns it: in memory, or where it is in the object store.
func (a *answerBody) close() ([]byte, *functions.BodyRef, error) {
	if a.pipe != nil && !a.closed {
		_ = a.pipe.Close()
		a.result = <-a.done
	}
	a.closed = true
	return a.head, a.result.ref, a.result.err
}

// discard removes a body that no record names.
func (a *answerBody) discard() {
	if _, ref, _ := a.close(); ref != nil && !a.kept {
		a.q.removeBody(ref)
	}
}
