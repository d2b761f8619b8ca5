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
	"github.com/tatami-faas/tatami/internal/fault"
)

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
	announced := 0
	if timing := c.timing(ran); resp.Header == nil {
		c.passFields(resp, timing)
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

// passFields gives the client the head of an ordinary answer. None of its fields is named by Connection, and no trailers are to come.
func (c *call) passFields(resp *http.Response, timing string) {
	fields := slices.DeleteFunc(c.x.conn.in.Fields(), func(f http1.Field) bool { return dropResponse(f.Name) })
	fields = append(fields, http1.Field{Name: HeaderInvocationID, Value: c.out.id}, http1.Field{Name: headerServerTiming, Value: timing})
	c.x.passer.Pass(resp.StatusCode, fields)
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
			c.inv.cfg.Awake.Touch()
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

// timing is the value of Server-Timing: where the time went, in milliseconds.
func (c *call) timing(ran time.Duration) string {
	b := make([]byte, 0, 128)
	l := &c.lease
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
