package invoke

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// frames follows the frames of a WebSocket in the direction of the client, to know whether one may be put behind what was sent so far.
type frames struct {
	// head holds the bytes of a header that has begun, have of them; left is what is to come of the frame's payload.
	head [14]byte
	have int
	left uint64
	// closing says that the function has sent its own close frame.
	closing bool
}

const (
	opClose = 8
	// closeText is the longest reason of a close frame.
	closeText = 123
	// The codes of a close frame: the other side goes away, something unexpected happened.
	codeGoingAway, codeUnexpected = 1001, 1011
)

// follow takes note of what was sent.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.head[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have < f.headerLength() {
			continue
		}
		f.closing = f.closing || f.head[0]&15 == opClose
		switch n := f.head[1] & 127; n {
		case 126:
			f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
		case 127:
			f.left = binary.BigEndian.Uint64(f.head[2:])
		default:
			f.left = uint64(n)
		}
		f.have = 0
	}
}

// headerLength is how long the header is that has begun, as far as can be told.
func (f *frames) headerLength() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & 127 {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&128 != 0 {
		n += 4
	}
	return n
}

// between reports whether a frame may follow.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.closing }

// closeFrame is a close frame with a reason.
func closeFrame(code uint16, text string) []byte {
	text = strings.ToValidUTF8(text[:min(len(text), closeText)], "")
	return append(binary.BigEndian.AppendUint16([]byte{128 | opClose, byte(2 + len(text))}, code), text...)
}

// farewell is the close frame for a stream that the function did not end itself; nil where it did, or where nobody knows why it ended.
func (x *exchange) farewell(ctx context.Context, f *frames, err error) []byte {
	if !f.between() {
		return nil
	}
	x.mu.Lock()
	why := x.cause
	x.mu.Unlock()
	if why == uncut {
		d, gone := x.departed(ctx)
		if !gone {
			return nil
		}
		if err = x.fn.crashed(d); fault.CodeOf(err) == fault.CodeDraining {
			err = fault.New(fault.CodeDraining, "the instance ended: %s", d.Reason)
		}
	} else {
		err = x.fault(ctx, err)
	}
	code := uint16(codeGoingAway)
	if fault.CodeOf(err) == fault.CodeFunctionCrashed {
		code = codeUnexpected
	}
	e := fault.From(err)
	if e == nil {
		return nil
	}
	return closeFrame(code, e.Message)
}

// farewellTimeout is how long the client may take to make room for the close frame.
const farewellTimeout = time.Second
