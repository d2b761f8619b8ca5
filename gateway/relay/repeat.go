package relay

import (
	"bytes"
	"io"
	"net/http"
)

const (
	// mostRepeats is how often a request is made again whose server died over it: the request may be why.
	mostRepeats = 2
	// mostKept is the largest body that is kept for that.
	mostKept = 64 << 10
)

// repeatable is a request that may be made again where it is not known whether it was done.
type repeatable struct {
	// left is how often.
	left int
	body []byte
}

// repeatableOf takes in what is needed to make a request again. It may be made again where it only reads, or has a key by which it is done once.
func repeatableOf(req *http.Request, kind string) *repeatable {
	if len(req.Header["Upgrade"]) > 0 {
		return &repeatable{}
	}
	hasBody := req.Body != nil && req.Body != http.NoBody && req.ContentLength != 0
	switch {
	case !changes(req) && !hasBody:
		return &repeatable{left: mostRepeats}
	case kind != kindPublic || req.Header.Get("Idempotency-Key") == "" || req.Header.Get("Expect") != "" || hasBody && (req.ContentLength < 0 || req.ContentLength > mostKept):
		return &repeatable{}
	case !hasBody:
		return &repeatable{left: mostRepeats}
	}
	rep := &repeatable{}
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

// rewind has the request begin anew.
func (r *repeatable) rewind(req *http.Request) {
	r.left--
	if r.body != nil {
		req.Body = io.NopCloser(bytes.NewReader(r.body))
	}
}

// failing is a body that cannot be read.
type failing struct{ err error }

// Read fails.
func (f failing) Read([]byte) (int, error) { return 0, f.err }
