package invoke

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// cause is why an exchange was cut.
type cause uint8

const (
	uncut cause = iota
	cutGone
	cutStopping
	cutTimeout
	cutIdle
	cutTooLarge
	cutBody
)

// exchange is one request and its answer. One goroutine drives it; cut may come from any.
type exchange struct {
	inv   *Invoker
	fn    *function
	limit functions.Duration
	idle  functions.Duration
	// client is the connection to the client; nil where there is none.
	client http.ResponseWriter
	// body is closed to wake who reads it, where there is no client.
	body io.Closer
	// passer takes an ordinary answer's fields in the place of a header; nil where the client needs that.
	passer passer
	// informed is shown 1xx answers; may be nil.
	informed interface{ inform(resp *http.Response) }

	// expiry is the end of the timeout.
	expiry expiry

	mu    sync.Mutex
	cause cause
	// err is the failure to read the body, for cutBody.
	err  error
	conn *upconn
	// h2 is set in the place of conn where the instance speaks HTTP/2.
	h2 *h2call
	// reading says that somebody reads the client's body, begun that the answer's head went to the client, over that cut comes too late;
	// half that the cut came in the middle of the client's body.
	reading, begun, over, half bool
	// hungUp says that the function was told that nobody waits; nothing is sent on the connection any more.
	hungUp bool
	// streaming says that the idle limit holds and not the timeout.
	streaming bool
	// timer holds a stream to the idle limit.
	timer *time.Timer
	// lastMove is when a byte moved last on a stream, in nanoseconds since start.
	start    time.Time
	lastMove atomic.Int64
	// ctx is the request's; watched or stopCtx end the watch over it, whichever is set.
	ctx     context.Context
	watched watched
	stopCtx func() bool

	lease *Lease
	sent  *bodySend
	// reusable says that the connection may serve another request once the answer is read.
	reusable bool
	// ended is when the connection was kept for another request; zero where it was not.
	ended time.Time
	// alone says that the exchange has ended and nobody else knows it any more.
	alone bool
}

// watch begins to hold the exchange to its deadline and to ctx.
func (x *exchange) watch(ctx context.Context, start, deadline time.Time) {
	x.start, x.expiry.at = start, deadline
	x.fn.deadlines.add(&x.expiry, x)
	x.ctx = ctx
	w, ok := x.client.(watched)
	if x.client == nil {
		w, ok = ctx.(watched)
	}
	if ok && w.Watch(ctx, x) {
		x.watched = w
	} else {
		x.stopCtx = context.AfterFunc(ctx, x.Gone)
	}
}

// watched is a client, or the context of a request without one, that tells of its end itself, as http1's does.
type watched interface {
	Watch(ctx context.Context, by http1.Watcher) bool
	// Unwatch reports whether the watcher may still be told.
	Unwatch() bool
}

// passer is a client that takes an answer's fields as they came, as http1's does.
type passer interface {
	Pass(status int, fields []http1.Field)
}

// Gone is the end of the request's context.
func (x *exchange) Gone() {
	if errors.Is(context.Cause(x.ctx), context.Canceled) {
		x.cut(cutGone, nil)
	} else {
		x.cut(cutStopping, nil)
	}
}

// cut ends the exchange early: whatever waits for the instance or the client wakes up.
func (x *exchange) cut(why cause, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != uncut || x.over {
		return
	}
	x.cause, x.err, x.half = why, err, x.reading
	if x.conn != nil {
		x.conn.close()
	}
	if x.h2 != nil {
		x.h2.cancel()
	}
	if x.reading {
		x.unblock()
	}
	if x.begun && x.client != nil {
		_ = http.NewResponseController(x.client).SetWriteDeadline(past)
	}
}

// past is a deadline that is over: whatever waits for it wakes up.
var past = time.Unix(1, 0)

// unblock wakes who reads the client's body; x.mu is held.
func (x *exchange) unblock() {
	if x.client != nil {
		_ = http.NewResponseController(x.client).SetReadDeadline(past)
	} else if x.body != nil {
		_ = x.body.Close()
	}
}

// expire is the end of the timeout, or of a time in which nothing may have moved.
func (x *exchange) expire() {
	x.mu.Lock()
	if !x.streaming {
		x.mu.Unlock()
		x.cut(cutTimeout, nil)
		return
	}
	quiet := time.Since(x.start) - time.Duration(x.lastMove.Load())
	if left := x.idle.Std() - quiet; left > 0 && !x.over {
		x.timer.Reset(left)
		x.mu.Unlock()
		return
	}
	x.mu.Unlock()
	x.cut(cutIdle, nil)
}

// moved notes that a byte moved.
func (x *exchange) moved() {
	x.lastMove.Store(int64(time.Since(x.start)))
	x.inv.cfg.Awake.Touch()
}

// stream puts the idle limit in the place of the timeout.
func (x *exchange) stream() {
	x.moved()
	x.fn.deadlines.remove(&x.expiry)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.streaming && !x.over {
		x.streaming = true
		x.timer = time.AfterFunc(x.idle.Std(), x.expire)
	}
}

// attach makes c what a cut closes; false when the cut came already.
func (x *exchange) attach(c *upconn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != uncut {
		return false
	}
	x.conn = c
	return true
}

// begin notes that the answer goes to the client from now on; false when the exchange was cut before.
func (x *exchange) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begun = x.cause == uncut
	return x.begun
}

// finish ends the exchange. The connection is kept if all went well and nobody cut it.
func (x *exchange) finish(complete bool) {
	if x.sent != nil {
		complete = x.awaitBody(complete) && complete
	}
	if x.h2 != nil {
		complete = x.h2.end(complete)
	}
	x.mu.Lock()
	x.over = true
	c, cut := x.conn, x.cause != uncut || x.hungUp
	x.conn = nil
	if x.timer != nil {
		x.timer.Stop()
	}
	x.mu.Unlock()
	x.alone = x.letGo()
	if x.h2 != nil {
		x.lease.inst.up.doneH2()
	}
	if c == nil {
		return
	}
	if complete && !cut && x.reusable && c.br.Buffered() == 0 {
		x.inv.lent.take(c)
		x.ended = time.Now()
		x.lease.inst.up.put(c, x.ended)
		return
	}
	c.close()
}

// letGo ends the watch over the exchange and reports whether nobody knows it any more: who once had a part in it may be about to look at it again.
func (x *exchange) letGo() bool {
	alone := x.fn.deadlines.remove(&x.expiry) && x.timer == nil && x.sent == nil && x.h2 == nil
	if x.watched != nil {
		alone = !x.watched.Unwatch() && alone
	}
	if x.stopCtx != nil {
		alone = x.stopCtx() && alone
	}
	return alone
}

// bodyGrace is how long a body that is still being sent may take to end after a complete answer.
const bodyGrace = 5 * time.Millisecond

// awaitBody waits until nobody reads the client's body and reports whether all of it was sent. An answer may be complete before the
// request is: then the rest is not wanted.
func (x *exchange) awaitBody(complete bool) bool {
	s := x.sent
	if complete {
		t := time.NewTimer(bodyGrace)
		defer t.Stop()
		select {
		case <-s.done:
			return s.err == nil
		case <-t.C:
		}
	}
	close(s.stop)
	x.mu.Lock()
	if x.conn != nil {
		x.conn.close()
	}
	x.unblock()
	x.mu.Unlock()
	<-s.done
	return false
}

// errNothingSent wraps the failure to connect: the request can go elsewhere.
type errNothingSent struct{ err error }

func (e *errNothingSent) Error() string { return e.err.Error() }
func (e *errNothingSent) Unwrap() error { return e.err }

// roundTrip sends the request to the leased instance and returns the head of its answer.
func (x *exchange) roundTrip(ctx context.Context, now time.Time, l *Lease, o *outgoing) (*http.Response, error) {
	x.lease = l
	if l.rev.Config.H2C() {
		return x.roundTripH2(ctx, l, o)
	}
	up := l.inst.up
	c := up.get(now, !o.replayable())
	for {
		if c == nil {
			var err error
			if c, err = up.dial(ctx, x.expiry.at); err != nil {
				return nil, &errNothingSent{err}
			}
		}
		if !x.attach(c) {
			c.close()
			return nil, errCut
		}
		x.inv.lent.lend(c)
		resp, err := x.try(c, o)
		if err == nil {
			return resp, nil
		}
		x.mu.Lock()
		x.conn = nil
		again := c.reused && !c.heard && o.replayable() && x.cause == uncut && !x.hungUp
		x.mu.Unlock()
		c.close()
		if !again {
			return nil, err
		}
		// The instance closed the idle connection while the request was on its way.
		c = nil
	}
}

// errCut stands for whatever the cut says.
var errCut = errors.New("the exchange was cut")

// bodySend is a body on its way, sent by a goroutine of its own.
type bodySend struct {
	// proceed is closed when the instance asks for the body, stop when nobody wants it any more, done when the goroutine has ended.
	proceed, stop, done chan struct{}
	asked               sync.Once
	// err is valid once done is closed.
	err error
}

// expectWait is how long the body is held back for an instance that does not say that it wants it.
const expectWait = time.Second

func (x *exchange) try(c *upconn, o *outgoing) (*http.Response, error) {
	c.heard, c.budget = false, x.inv.cfg.MaxHeader
	o.writeHead(c.bw)
	var werr error
	switch {
	case !o.hasBody():
		werr = c.bw.Flush()
	case o.inline():
		x.setReading(true)
		werr = o.writeInline(c.bw)
		x.setReading(false)
		var ce *clientError
		if errors.As(werr, &ce) {
			x.cut(cutBody, ce.err)
			return nil, werr
		}
	default:
		if werr = c.bw.Flush(); werr == nil {
			x.sendBody(c, o)
		}
	}
	if werr != nil {
		// The instance may have answered before it closed.
		_ = c.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	resp, err := x.readHead(c, o)
	if err != nil {
		if werr != nil && !c.heard {
			err = werr
		}
		return nil, err
	}
	if werr != nil {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	c.budget = noBudget
	x.reusable = werr == nil && !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols
	return resp, nil
}

func (x *exchange) setReading(v bool) {
	x.mu.Lock()
	x.reading = v
	x.mu.Unlock()
}

// sendBody starts to send a long body. The exchange's goroutine reads the answer meanwhile.
func (x *exchange) sendBody(c *upconn, o *outgoing) {
	s := &bodySend{proceed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	x.sent = s
	x.setReading(true)
	go func() {
		defer close(s.done)
		if o.expect && !s.wait() {
			s.err = io.ErrShortWrite
			return
		}
		buf := x.inv.bufs.get()
		s.err = o.writeStream(c.bw, *buf, x.moved)
		x.inv.bufs.put(buf)
		x.setReading(false)
		var ce *clientError
		switch {
		case !errors.As(s.err, &ce):
		case errors.Is(ce.err, errTooLarge):
			x.cut(cutTooLarge, nil)
		default:
			x.cut(cutBody, ce.err)
		}
	}()
}

// wait returns once the body may be sent; false when it is not wanted.
func (s *bodySend) wait() bool {
	t := time.NewTimer(expectWait)
	defer t.Stop()
	select {
	case <-s.proceed:
	case <-t.C:
	case <-s.stop:
		return false
	}
	return true
}

// maxInformational bounds the 1xx answers before the real one.
const maxInformational = 20

// readHead reads up to the head of the final answer. That has no header where the passer takes its fields.
func (x *exchange) readHead(c *upconn, o *outgoing) (*http.Response, error) {
	in := &c.in
	for range maxInformational {
		resp, err := in.Read(c.br, o.req)
		if err != nil {
			return nil, err
		}
		x.inv.cfg.Awake.Touch()
		if x.client == nil {
			// Whoever has no client to pass the answer on to may keep it, when the connection's is that of the next call.
			kept := *resp
			resp = &kept
		}
		if resp.Header == nil && x.passer == nil {
			resp.Header = in.Header()
		}
		switch s := resp.StatusCode; {
		case s == http.StatusSwitchingProtocols:
			if o.upgrade == "" {
				return nil, errors.New("it switches protocols and was not asked to")
			}
			return resp, nil
		case s >= 200:
			return resp, nil
		case s < 100:
			return nil, errors.New("its status is no status")
		case s == http.StatusContinue:
			if x.sent != nil {
				x.sent.asked.Do(func() { close(x.sent.proceed) })
			}
		case x.informed != nil:
			x.informed.inform(resp)
		}
	}
	return nil, errors.New("it sends informational answers without end")
}

// departureWait is how long a broken connection waits for the news that its instance is gone: by way of its sandbox, its worker and the bus,
// on a loaded machine too. Without the news a crash is told as a bad answer, and why it crashed not at all.
const departureWait = time.Second

// fault says why there is no complete answer; err is what the round trip or the reading of the body gave.
func (x *exchange) fault(ctx context.Context, err error) error {
	x.mu.Lock()
	why, bodyErr, half := x.cause, x.err, x.half
	x.mu.Unlock()
	switch why {
	case cutGone:
		return errGone
	case cutStopping:
		if e := fault.From(context.Cause(ctx)); e != nil {
			return e
		}
		return fault.New(fault.CodeDraining, "the server is stopping")
	case cutTimeout:
		return x.fn.timedOut(x.limit, half)
	case cutIdle:
		return x.fn.idled(x.idle)
	case cutTooLarge:
		return tooLarge(x.inv.cfg.MaxBody)
	case cutBody:
		if errors.Is(bodyErr, io.ErrUnexpectedEOF) {
			return errGone
		}
		return badBody(bodyErr)
	}
	if fault.Is(err, fault.CodeUnavailable) {
		return x.fn.outOfReach(err)
	}
	if errors.Is(err, errHeaderTooLarge) {
		return x.fn.badResponse(err, "answered with more than %d bytes of header", x.inv.cfg.MaxHeader)
	}
	if x.h2 != nil || broken(err) {
		// HTTP/2 tells the end of a connection in many ways.
		if d, gone := x.departed(ctx); gone {
			return x.fn.crashed(d)
		}
		if x.h2 == nil {
			return x.fn.badResponse(err, "closed the connection without a complete answer")
		}
	}
	return x.fn.notSpoken(err, x.h2 != nil)
}

// departed waits for the news that the instance is gone.
func (x *exchange) departed(ctx context.Context) (bus.Departure, bool) {
	t := time.NewTimer(departureWait)
	defer t.Stop()
	select {
	case <-x.lease.inst.gone:
		return x.lease.inst.departure, true
	case <-t.C:
	case <-ctx.Done():
	}
	return bus.Departure{}, false
}

// errGone is the end of an exchange whose client left; it is never shown.
var errGone = errors.New("the client left")
