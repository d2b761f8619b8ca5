package invoke

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxElsewhere is how many further instances are tried when one does not take a connection.
const maxElsewhere = 3

// call is a request on its way through the gateway.
type call struct {
	inv *Invoker
	w   http.ResponseWriter
	r   *http.Request
	// id is the invocation's where the caller made it.
	id    string
	fn    *function
	rt    *route
	start time.Time
	// ended is when the last attempt ended.
	ended time.Time
	out   outgoing
	fwd   forwarding
	// x is the exchange tried last, and first where the first one is.
	x     *exchange
	first exchange
	lease Lease
	// written says that the answer's head is out.
	written bool
	cold    bool
	stream  bool
	status  int
}

// callPool holds calls that have ended.
type callPool struct{ pool sync.Pool }

func (p *callPool) get() *call {
	if c, ok := p.pool.Get().(*call); ok {
		return c
	}
	return &call{}
}

// put keeps a call whose exchange nobody knows any more; another one is left to the collector.
func (p *callPool) put(c *call) {
	if c.x == &c.first && c.first.alone {
		*c = call{}
		p.pool.Put(c)
	}
}

// ServeFunction carries a request to the function and its answer back. Path is the part of the request's path that belongs to the
// function, escaped as it came, beginning with '/'. It answers faults itself; an answer that breaks off aborts the client's connection,
// so that the client does not take it for a whole one (http.ErrAbortHandler).
func (inv *Invoker) ServeFunction(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) {
	inv.ServeInvocation(w, r, ref, path, "")
}

// ServeInvocation is ServeFunction under an id that the caller made; "" lets one be made.
func (inv *Invoker) ServeInvocation(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, id functions.InvocationID) {
	c := inv.calls.get()
	c.inv, c.w, c.r, c.id, c.start = inv, w, r, string(id), time.Now()
	err := c.admit(ref, path)
	if err == nil {
		err = c.serve()
	}
	if c.fn != nil {
		now := c.ended
		if err != nil {
			now = time.Now()
		}
		c.fn.stats.record(now, now.Sub(c.start), outcome{status: c.status, err: err, cold: c.cold, stream: c.stream})
	}
	switch {
	case err == nil:
		inv.calls.put(c)
	case c.written:
		inv.log.Debug("an answer broke off", "fn", ref.String(), "inv", c.out.id, "err", err)
		panic(http.ErrAbortHandler)
	default:
		if status := statusOf(err); status >= http.StatusInternalServerError {
			inv.log.Debug("a request failed", "fn", ref.String(), "inv", c.out.id, "err", err, "kind", fault.KindOf(err).String())
		}
		if c.out.id != "" {
			w.Header().Set(HeaderInvocationID, c.out.id)
		}
		if c.out.body != nil && r.ProtoMajor == 1 {
			// What is left of the body would be taken for the next request.
			w.Header().Set("Connection", "close")
		}
		if errors.Is(err, errGone) {
			w.WriteHeader(problem.StatusClientGone)
			return
		}
		problem.Respond(w, r, err)
	}
}

// admit finds the route and checks what can be checked before an instance is needed. When it returns nil the namespace counts the call.
func (c *call) admit(ref functions.Ref, path string) error {
	f, rt, err := c.inv.routes.find(c.r.Context(), ref)
	if err != nil {
		return err
	}
	c.fn, c.rt = f, rt
	if rt.live == nil {
		return f.noLive(rt)
	}
	r, o := c.r, &c.out
	if r.ContentLength > c.inv.cfg.MaxBody {
		return tooLarge(c.inv.cfg.MaxBody)
	}
	if headerSize(r.Header)+len(r.RequestURI) > c.inv.cfg.MaxHeader {
		return headerTooLarge(c.inv.cfg.MaxHeader)
	}
	if r.Method == http.MethodConnect {
		return fault.New(fault.CodeInvalidRequest, "a function cannot be reached by CONNECT")
	}
	if err := f.ns.allow(c.start); err != nil {
		return err
	}
	if full := f.ns.enter(); full != nil {
		return f.ns.full(full)
	}
	c.fwd = forwardingOf(r)
	*o = outgoing{
		req: r, target: path, host: r.Host, header: r.Header, named: namedByConnection(r.Header), id: c.id, forward: &c.fwd,
		maxBody: c.inv.cfg.MaxBody,
	}
	if o.id == "" {
		o.id = f.invocationID()
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		o.target = path + "?" + r.URL.RawQuery
	}
	if o.host == "" {
		o.host = hostOf(ref)
	}
	if tp := r.Header["Traceparent"]; validTraceparent(tp) {
		o.traceparent = tp[0]
	} else {
		o.traceparent = newTraceparent()
		if len(r.Header["Tracestate"]) > 0 {
			o.named = append(o.named, "Tracestate")
		}
	}
	// Over HTTP/2 a request without a body has a reader for it all the same.
	if r.Body != nil && r.Body != http.NoBody && (r.ContentLength != 0 || len(r.Trailer) > 0) {
		o.body, o.length = r.Body, r.ContentLength
		o.chunked = o.length < 0 || len(r.Trailer) > 0
		o.expect = hasToken(r.Header["Expect"], "100-continue")
	} else if r.ProtoMajor == 1 {
		o.upgrade = UpgradeOf(r.Header)
	}
	return nil
}

// serve leases a slot, sends the request and relays the answer.
func (c *call) serve() error {
	defer c.fn.ns.leave()
	cfg := &c.rt.live.Config
	deadline := c.start.Add(cfg.Timeout.Std())
	ctx := c.r.Context()
	for refused := 0; ; {
		err := c.inv.lease(ctx, &c.lease, c.fn, Sync, c.start, deadline, cfg.Timeout)
		if err != nil {
			if problem.Gone(c.r) {
				return errGone
			}
			return err
		}
		c.cold = c.cold || c.lease.cold
		if err = c.attempt(ctx, deadline); err == nil {
			return nil
		}
		var unsent *errNothingSent
		if !errors.As(err, &unsent) {
			return err
		}
		// Nothing was sent. Another instance may have a slot; else it counts whether this one is gone, for which news are on their way: then
		// a new one comes, as for any request that finds none.
		if c.fn.pool.hasFree() {
			refused++
		} else if _, gone := c.x.departed(ctx); !gone {
			refused++
		}
		if refused > maxElsewhere {
			return c.fn.badResponse(unsent.err, "takes no connections on port %d", c.rt.live.Config.Port)
		}
	}
}

// attempt makes the exchange on the leased instance.
func (c *call) attempt(ctx context.Context, deadline time.Time) (err error) {
	l := &c.lease
	x := &c.first
	if c.x != nil {
		x = &exchange{}
	}
	c.x = x
	suspect := false
	defer func() {
		if c.ended = x.ended; c.ended.IsZero() {
			c.ended = time.Now()
		}
		l.release(c.ended, suspect)
	}()
	x.inv, x.fn, x.limit, x.idle = c.inv, c.fn, c.rt.live.Config.Timeout, c.rt.live.Config.IdleTimeout
	x.client = c.w
	x.passer, _ = c.w.(passer)
	if c.out.body != nil && (!c.out.inline() || l.rev.Config.H2C()) && c.r.ProtoMajor == 1 {
		// Some writers cannot; then the answer begins when the body has been read.
		_ = http.NewResponseController(c.w).EnableFullDuplex()
	}
	if c.r.ProtoAtLeast(1, 1) {
		x.informed = c
	}
	x.watch(ctx, c.start, deadline)
	sent := time.Now()
	resp, err := x.roundTrip(ctx, sent, l, &c.out) //nolint:bodyclose // the exchange owns the connection, and finish ends it
	if err != nil {
		var unsent *errNothingSent
		if errors.As(err, &unsent) && x.uncut() {
			x.finish(false)
			suspect = true
			return unsent
		}
		// What is read from the client stops first: the fault's text depends on how it ended.
		x.stopBody()
		err = x.fault(ctx, err)
		x.finish(false)
		return err
	}
	return c.relay(ctx, resp, time.Since(sent))
}

// stopBody ends the sending of the client's body, if it is under way.
func (x *exchange) stopBody() {
	if x.sent != nil {
		x.awaitBody(false)
		x.sent = nil
	}
	if x.h2 != nil && x.h2.body != nil {
		x.h2.body.finish(false)
	}
}

func (x *exchange) uncut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause == uncut
}
