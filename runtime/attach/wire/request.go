// Package wire is what the worker, the init of a sandbox and the keeper of all inits say to each other. The init links it: it imports
// nothing that is large.
//
// The worker asks the keeper to spawn an init. The init reads its setup from its connection, does it, says Hello (or answers why not),
// waits for one request and for Begin, and answers with why it cannot be done; without an answer the connection ends, as the function's
// program has taken the init's place.
package wire

import "errors"

const (
	// Hello is the byte that the init sends when its setup is done: the version of this protocol.
	Hello = 5
	// Entered is the byte that the init sends when it has started anew in a user namespace, which has no users until the worker says whom.
	Entered = 1
	// Begin is the byte that has the init become the process of the request that it was sent.
	Begin = 2
	// MaxRequest is the longest request in bytes.
	MaxRequest = 2 << 20
	// HeaderSize is the length of what precedes a request: its own length.
	HeaderSize = 4

	maxStrings = 1 << 16
	maxPort    = 1<<16 - 1
)

// ErrMalformed is a request that cannot be read.
var ErrMalformed = errors.New("the request is malformed")

// ErrTooLong is a request of more than MaxRequest bytes.
var ErrTooLong = errors.New("the arguments and the environment are too long")

// Request is the function's process.
type Request struct {
	// UID is 0 only in a user namespace: where Keep says something.
	UID, GID uint32
	Groups   []uint32
	Cwd      string
	Args     []string
	Env      []string
	// Listen is the port of a socket that listens and is handed over as descriptor 3; 0 for none.
	Listen uint32
	// Keep has a bit set for each capability that the process has, root of a user namespace only; all others are given up.
	Keep uint64
}

// Encode returns the request behind its header.
func (r *Request) Encode() ([]byte, error) {
	b, err := r.append(make([]byte, HeaderSize, 4096))
	if err != nil {
		return nil, err
	}
	number(b[:0], uint32(len(b)-HeaderSize))
	return b, nil
}

// append adds the request without its header.
func (r *Request) append(b []byte) ([]byte, error) {
	before := len(b)
	b = number(b, r.UID)
	b = number(b, r.GID)
	b = number(b, uint32(len(r.Groups)))
	for _, g := range r.Groups {
		b = number(b, g)
	}
	b = text(b, r.Cwd)
	b = texts(b, r.Args)
	b = texts(b, r.Env)
	b = long(number(b, r.Listen), r.Keep)
	if len(b)-before > MaxRequest || len(r.Groups) > maxStrings || len(r.Args) > maxStrings || len(r.Env) > maxStrings {
		return nil, ErrTooLong
	}
	return b, nil
}

// Length reads a header.
func Length(header []byte) (int, error) {
	d := decoder{b: header}
	n := d.number()
	if d.bad || n > MaxRequest {
		return 0, ErrMalformed
	}
	return int(n), nil
}

// Decode reads a request without its header.
func Decode(b []byte) (Request, error) {
	d := decoder{b: b}
	r := Request{UID: d.number(), GID: d.number()}
	for range d.count() {
		r.Groups = append(r.Groups, d.number())
	}
	r.Cwd, r.Args, r.Env = d.text(), d.texts(), d.texts()
	r.Listen, r.Keep = d.number(), d.long()
	if r.Listen > maxPort || d.bad || len(d.b) > 0 || (r.UID == 0) != (r.Keep != 0) || len(r.Args) == 0 {
		return Request{}, ErrMalformed
	}
	return r, nil
}

func number(b []byte, n uint32) []byte {
	return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

func text(b []byte, s string) []byte { return append(number(b, uint32(len(s))), s...) }

func texts(b []byte, all []string) []byte {
	b = number(b, uint32(len(all)))
	for _, s := range all {
		b = text(b, s)
	}
	return b
}

// decoder reads until something does not fit; then everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() uint32 {
	if d.bad || len(d.b) < 4 {
		d.bad = true
		return 0
	}
	n := uint32(d.b[0]) | uint32(d.b[1])<<8 | uint32(d.b[2])<<16 | uint32(d.b[3])<<24
	d.b = d.b[4:]
	return n
}

// count is a number of things of at least four bytes each.
func (d *decoder) count() uint32 {
	n := d.number()
	if n > maxStrings || int(n) > len(d.b)/4 {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) bytes() []byte {
	n := int(d.number())
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) text() string {
	s := string(d.bytes())
	for i := range len(s) {
		// It would end the string for the kernel.
		if s[i] == 0 {
			d.bad = true
			return ""
		}
	}
	return s
}

func (d *decoder) texts() []string {
	var out []string
	for range d.count() {
		out = append(out, d.text())
	}
	return out
}
