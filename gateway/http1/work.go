package http1

import (
	"net/http"
	"net/url"
	"sync"
)

const (
	// inSize is the longest head that is read here, and what is read of a body at once with it.
	inSize = 8 << 10
	// outSize is what is gathered of an answer before it is sent; longer parts go out as they are.
	outSize = 8 << 10
	// heldSize is how much of a body is held back to learn its length.
	heldSize = 2 << 10
)

// work is what a request needs while it is read and answered. It is used by one request after another.
type work struct {
	// in[at:end] has come and was not used yet.
	in      [inSize]byte
	at, end int

	fields
	req    http.Request
	url    url.URL
	body   body
	answer answer
}

// works holds work that no connection needs.
type works struct{ pool sync.Pool }

func (p *works) get() *work {
	if w, ok := p.pool.Get().(*work); ok {
		return w
	}
	w := &work{}
	w.answer.header = make(http.Header, fewHeaders)
	w.answer.out, w.answer.held = make([]byte, 0, outSize), make([]byte, 0, heldSize)
	return w
}

func (p *works) put(w *work) {
	w.at, w.end = 0, 0
	p.pool.Put(w)
}

// reset makes room for the next request; blank holds what all requests of the connection have in common.
func (w *work) reset(blank *http.Request) {
	w.fields.reset()
	w.req = *blank
	w.req.Header, w.req.URL = w.header, &w.url
}

// unread is what has come and was not used.
func (w *work) unread() []byte { return w.in[w.at:w.end] }

// compact moves what was not used to the front.
func (w *work) compact() {
	w.end = copy(w.in[:], w.unread())
	w.at = 0
}
