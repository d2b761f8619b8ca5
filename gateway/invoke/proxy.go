package invoke

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
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
	lease *Lease
	// written says that the answer's head is out.
	written bool
	cold    bool
	stream  bool
	status  int
}

// ServeFunction carries a request to the function and its answer back. Path is the part of the request's path that belongs to the
// function, escaped as it came, beginning with '/'. It answers faults itself; an answer that breaks off aborts the client's connection,
// so that the client does not take it for a whole one (http.ErrAbortHandler).
func (inv *Invoker) ServeFunction(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) {
	inv.ServeInvocation(w, r, ref, path, "")
}

// ServeInvocation is ServeFunction under an id that the caller made; "" lets one be made.
func (inv *Invoker) ServeInvocation(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, id functions.InvocationID) {
	c := call{inv: inv, w: w, r: r, id: string(id), start: time.Now()}
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
		l, err := c.inv.lease(ctx, c.fn, Sync, c.start, deadline, cfg.Timeout)
		if err != nil {
			if problem.Gone(c.r) {
				return errGone
			}
			return err
		}
		c.lease = l
		c.cold = c.cold || l.cold
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
	l := c.lease
	suspect := false
	defer func() {
		c.ended = time.Now()
		l.release(c.ended, suspect)
	}()
	x := &c.first
	if c.x != nil {
		x = &exchange{}
	}
	c.x = x
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

func (c *call) inform(resp *http.Response) {
	h := c.w.Header()
	for k, vv := range resp.Header {
		if !dropResponse(k) {
			h[k] = vv
		}
	}
	c.w.WriteHeader(resp.StatusCode)
	for k := range resp.Header {
		delete(h, k)
	}
}

// relay passes the answer to the client.
func (c *call) relay(ctx context.Context, resp *http.Response, ran time.Duration) (err error) {
	x := c.x
	if resp.StatusCode > 999 {
		x.finish(false)
		return c.fn.badResponse(nil, "answered with status %d", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return c.switchProtocols(ctx, resp)
	}
	if !x.begin() {
		x.stopBody()
		err := x.fault(ctx, errCut)
		x.finish(false)
		return err
	}
	c.status, c.written = resp.StatusCode, true
	if isStream(c.contentType(resp)) {
		c.stream = true
		x.stream()
	}
	announced, timing := 0, c.timing(ran)
	if resp.Header == nil {
		fields := slices.DeleteFunc(x.conn.in.Fields(), func(f http1.Field) bool { return dropResponse(f.Name) })
		fields = append(fields, http1.Field{Name: HeaderInvocationID, Value: c.out.id}, http1.Field{Name: headerServerTiming, Value: timing})
		x.passer.Pass(resp.StatusCode, fields)
	} else {
		announced = c.setHeader(resp, timing)
		c.w.WriteHeader(resp.StatusCode)
	}
	if err := c.copyBody(resp); err != nil {
		err = x.brokenOff(ctx, err)
		x.finish(false)
		return err
	}
	c.trailers(resp, announced)
	x.finish(true)
	return nil
}

// setHeader makes the client's header of the answer's, and returns how many trailers it announces.
func (c *call) setHeader(resp *http.Response, timing string) (announced int) {
	h := c.w.Header()
	named := namedByConnection(resp.Header)
	for k, vv := range resp.Header {
		if !dropResponse(k) && !slices.Contains(named, k) {
			h[k] = vv
		}
	}
	if _, ok := h["Content-Type"]; !ok {
		// What the function did not say is not guessed for it.
		h["Content-Type"] = nil
	}
	h[HeaderInvocationID] = []string{c.out.id}
	// The function's own values are not ours to append to.
	h[headerServerTiming] = append(slices.Clip(h[headerServerTiming]), timing)
	for k := range resp.Trailer {
		if !dropResponse(k) {
			h.Add("Trailer", k)
			announced++
		}
	}
	if announced > 0 && c.r.ProtoMajor == 1 {
		// HTTP/2 has trailers behind a body of known length; HTTP/1 does not.
		delete(h, "Content-Length")
	}
	return announced
}

// contentType is the answer's Content-Type, "" where it has none.
func (c *call) contentType(resp *http.Response) string {
	if resp.Header == nil {
		return c.x.conn.in.Get("Content-Type")
	}
	return resp.Header.Get("Content-Type")
}

// isStream reports whether an answer may last: an event stream, or gRPC, whose calls send their head with the first message.
func isStream(contentType string) bool {
	const grpc = "application/grpc"
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.TrimSpace(media)
	return strings.EqualFold(media, "text/event-stream") || len(media) >= len(grpc) && strings.EqualFold(media[:len(grpc)], grpc)
}

// errWrite wraps a failure to write to the client.
type errWrite struct{ err error }

func (e *errWrite) Error() string { return e.err.Error() }

// copyBody passes the body on. What came is sent on at once when nothing more is there.
func (c *call) copyBody(resp *http.Response) error {
	if resp.Body == http.NoBody {
		return nil
	}
	if b := c.x.whole(resp); b != nil && !c.stream {
		if _, err := c.w.Write(b); err != nil {
			return &errWrite{err}
		}
		_, _ = c.x.conn.br.Discard(len(b))
		return nil
	}
	buf := c.inv.bufs.get()
	defer c.inv.bufs.put(buf)
	x := c.x
	flusher, _ := c.w.(http.Flusher)
	flush := func() {
		if flusher != nil && (x.conn == nil || x.conn.br.Buffered() == 0) {
			flusher.Flush()
		}
	}
	// The first byte of the body may be far away. An empty one is not: HTTP/2 ends it together with the head, as gRPC wants it.
	if resp.ContentLength != 0 {
		flush()
	}
	for {
		n, err := resp.Body.Read(*buf)
		if c.stream {
			x.moved()
		}
		if n > 0 {
			if _, werr := c.w.Write((*buf)[:n]); werr != nil {
				return &errWrite{werr}
			}
			if err == nil {
				flush()
			}
			if c.stream {
				x.moved()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// whole returns the body of an ordinary answer that has come together with its head, nil where it has not. It is still to be read.
func (x *exchange) whole(resp *http.Response) []byte {
	if resp.Header != nil || resp.ContentLength > int64(x.conn.br.Buffered()) {
		return nil
	}
	b, _ := x.conn.br.Peek(int(resp.ContentLength))
	return b
}

// trailers passes the trailers on that came after the body.
func (c *call) trailers(resp *http.Response, announced int) {
	if len(resp.Trailer) == 0 {
		return
	}
	h := c.w.Header()
	if f, ok := c.w.(http.Flusher); ok {
		// An empty body would be sent with a length, and there is no trailer after that.
		f.Flush()
	}
	for k, vv := range resp.Trailer {
		if dropResponse(k) {
			continue
		}
		if !slices.Contains(h["Trailer"], k) || announced == 0 {
			k = http.TrailerPrefix + k
		}
		h[k] = vv
	}
}

// brokenOff says why an answer that has begun did not end.
func (x *exchange) brokenOff(ctx context.Context, err error) error {
	var we *errWrite
	if errors.As(err, &we) {
		x.cut(cutGone, nil)
	}
	x.mu.Lock()
	why := x.cause
	x.mu.Unlock()
	if why != uncut || fault.Is(err, fault.CodeUnavailable) {
		return x.fault(ctx, err)
	}
	if d, gone := x.departed(ctx); gone {
		return x.fn.crashed(d)
	}
	return x.fn.badResponse(err, "broke off its answer")
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

// timing is the value of Server-Timing: where the time went, in milliseconds.
func (c *call) timing(ran time.Duration) string {
	b := make([]byte, 0, 128)
	l := c.lease
	waited := l.waited
	if l.cold {
		// The parts of the start that lie within the wait; the rest of it was the queue.
		ph := l.ep.Phases
		parts := []struct {
			name string
			d    functions.Duration
		}{{"place", ph.Place}, {"prepare", ph.Prepare}, {"create", ph.Create}, {"start", ph.Start}, {"ready", ph.Ready}}
		for _, p := range parts {
			waited -= p.d.Std()
		}
		b = appendTiming(b, "queue", max(waited, 0))
		for _, p := range parts {
			// Most nodes hold the artifact already.
			if p.d > 0 || p.name != "prepare" {
				b = appendTiming(b, p.name, p.d.Std())
			}
		}
		if ph.Path != "" {
			b = append(append(append(b, `, path;desc="`...), ph.Path...), '"')
		}
		if ph.PathReason != "" {
			b = strconv.AppendQuoteToASCII(append(b, `, why;desc=`...), ph.PathReason)
		}
	} else {
		b = appendTiming(b, "queue", max(waited-l.thawed, 0))
		if l.thawed > 0 {
			b = appendTiming(b, "thaw", l.thawed)
		}
	}
	return string(appendTiming(b, "run", ran))
}

func appendTiming(b []byte, name string, d time.Duration) []byte {
	if len(b) > 0 {
		b = append(b, ", "...)
	}
	b = append(append(b, name...), ";dur="...)
	us := d.Microseconds()
	b = strconv.AppendInt(b, us/1000, 10)
	b = append(b, '.')
	us %= 1000
	return append(b, byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
}
