package relay

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

const (
	// mostRepeats is how often a request is made again whose server died over it: the request may be why.
	mostRepeats = 2
	// smallBody is the largest body that is kept for that in any case, largeBody the largest that is as long as there is room: what is larger is no message of
	// the queue's, but lies beside it.
	smallBody = 64 << 10
	largeBody = 512 << 10
	// defaultRoom is that of all bodies together that are not small.
	defaultRoom = 64 << 20
)

// repeatable is a request that may be made again where it is not known whether it was done.
type repeatable struct {
	// left is how often.
	left int
	body []byte
	// id is the invocation's that it is to become, where a request without a key is to become one. Again says that it may be one already.
	id    string
	again bool
	// claimed is what it has of the room for bodies.
	claimed int64
	// until is when a refusal that may be due to a change of the server that leads is passed on.
	until time.Time
}

// repeatableOf takes in what is needed to make a request again. It may be made again where it only reads, or has a key or an id by which it is done once.
func (r *Relay) repeatableOf(req *http.Request, kind string) *repeatable {
	rep := &repeatable{until: time.Now().Add(r.cfg.Patience)}
	if len(req.Header["Upgrade"]) > 0 {
		return rep
	}
	hasBody := req.Body != nil && req.Body != http.NoBody && req.ContentLength != 0
	switch {
	case !changes(req) && !hasBody:
		rep.left = mostRepeats
		return rep
	case kind != kindPublic || req.Header.Get("Expect") != "" || hasBody && (req.ContentLength < 0 || !r.claim(rep, req.ContentLength)):
		return rep
	}
	if req.Header.Get("Idempotency-Key") == "" {
		if r.cfg.Names != nil {
			rep.id = r.cfg.Names(req)
		}
		if rep.id == "" {
			return rep
		}
	}
	if !hasBody {
		rep.left = mostRepeats
		return rep
	}
	body, err := io.ReadAll(req.Body)
	if rep.body = body; err == nil {
		rep.left = mostRepeats
		req.Body = io.NopCloser(bytes.NewReader(body))
		return rep
	}
	// Whoever reads it gets as far.
	req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
	return rep
}

// claim takes room for a body, and reports whether there is any. Release gives it back.
func (r *Relay) claim(rep *repeatable, size int64) bool {
	switch {
	case size <= smallBody:
		return true
	case size > largeBody:
		return false
	}
	rep.claimed = size
	return r.claimed.Add(size) <= r.cfg.Room
}

func (r *Relay) release(rep *repeatable) { r.claimed.Add(-rep.claimed) }

// tell tells the handlers the name of the invocation that the request is to become.
func (r *Relay) tell(req *http.Request, rep *repeatable) *http.Request {
	if rep.id == "" || r.cfg.Named == nil {
		return req
	}
	return req.WithContext(r.cfg.Named(req.Context(), rep.id, rep.again))
}

// received makes of a request that another server handed on the one that its client made.
func (r *Relay) received(req *http.Request) *http.Request {
	rep := &repeatable{id: req.Header.Get(headerName), again: req.Header.Get(headerAgain) != ""}
	if client := req.Header.Get(headerClient); client != "" {
		req.RemoteAddr, req.TLS = client, nil
	}
	for _, name := range []string{headerKind, headerMark, headerClient, headerName, headerAgain} {
		req.Header.Del(name)
	}
	return r.tell(req, rep)
}

// rewind has the request begin anew. It may have been done all the same.
func (r *repeatable) rewind(req *http.Request) {
	r.again = true
	if r.body != nil {
		req.Body = io.NopCloser(bytes.NewReader(r.body))
	}
}

// failing is a body that cannot be read.
type failing struct{ err error }

// Read fails.
func (f failing) Read([]byte) (int, error) { return 0, f.err }
