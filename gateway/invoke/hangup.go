package invoke

import (
	"github.com/tatami-faas/tatami/functions"
)

// Ender is a worker's side that can end an instance.
type Ender interface {
	// End closes the instance to new slots and stops it, whoever holds one.
	End(node functions.NodeID, inst functions.InstanceID, reason string) error
}

// HangUp tells the function that nobody waits for the answer to the request under way any more, and leaves the way back open: the round trip ends with
// its answer, or when it closes the connection, and both say that it has noticed. Where it was not told, the request's context is what ends
// the round trip; sent says that the function may have begun.
func (l *Lease) HangUp() (told, sent bool) {
	if x := l.under.Load(); x != nil {
		return x.hangUp()
	}
	return false, false
}

// End has the instance stopped: it goes on with what nobody waits for, and what comes next would find it at that.
func (l *Lease) End(reason string) error {
	e, ok := l.inv.workers.(Ender)
	if !ok {
		return nil
	}
	return e.End(l.ep.Node, l.ep.Instance, reason)
}

// hangUp ends the side of the connection that writes.
func (x *exchange) hangUp() (told, sent bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.cause != uncut || x.conn == nil {
		return false, !x.over && x.h2 != nil
	}
	half, ok := x.conn.nc.(halfCloser)
	if !ok || half.CloseWrite() != nil {
		return false, true
	}
	x.hungUp = true
	return true, true
}
