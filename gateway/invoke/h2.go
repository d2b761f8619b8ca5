package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// h2Window bounds what an instance may send ahead of a client that reads slowly, for each stream.
	h2Window = 512 << 10
	// h2DialTimeout bounds a connection that no request waits for any more: the transport goes on with it for the next one.
	h2DialTimeout = 30 * time.Second
)

// newH2 makes the transport for an instance that speaks HTTP/2 in clear text. It belongs to the instance and ends with it.
func (u *upstream) newH2(maxHeader int) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, h2DialTimeout)
			defer cancel()
			nc, err := u.workers.Dial(ctx, u.node, u.id)
			if err != nil {
				return nil, &errNothingSent{err}
			}
			return &greeted{Conn: nc, http1: &u.saidHTTP1}, nil
		},
		DisableCompression: true,
		IdleConnTimeout:    maxIdle,
		// What is larger than this takes the whole connection with it, so it is not the bound itself.
		MaxResponseHeaderBytes: 4 * int64(maxHeader),
		ExpectContinueTimeout:  expectWait,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: h2Window},
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// greeted is a connection whose first bytes are looked at: where they are an answer in HTTP/1 and the connection ends at once, the transport
// may tell of the end only.
type greeted struct {
	net.Conn
	http1 *atomic.Bool
	begun bool
}

// Read belongs to the transport's one reading goroutine.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 && !g.begun {
		g.begun = true
		if strings.HasPrefix(string(b[:min(n, len(http1Begins))]), http1Begins) {
			g.http1.Store(true)
		}
	}
	return n, err
}

const http1Begins = "HTTP/1."

// h2 returns the instance's transport for HTTP/2, made when it is first asked for.
func (u *upstream) h2(maxHeader int) *http.Transport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.overH2 == nil {
		u.overH2 = u.newH2(maxHeader)
	}
	return u.overH2
}

// h2call is an exchange's stream on a connection of HTTP/2.
type h2call struct {
	cancel context.CancelFunc
	// body is nil for a request without one.
	body *h2body
	// answer is the body to be closed at the end; nil before there is one.
	answer io.Closer

	mu sync.Mutex
	// informed counts the 1xx answers; answered says that no further one may be passed on.
	informed int
	answered bool
}

// roundTripH2 is roundTrip for an instance that speaks HTTP/2. The transport sends again what no instance has seen; what cannot be sent
// because nothing takes the connection is an errNothingSent here too.
func (x *exchange) roundTripH2(ctx context.Context, l *Lease, o *outgoing) (*http.Response, error) {
	// What ends the exchange is cut, not the context: it knows why.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &h2call{cancel: cancel}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error { return h.inform(x, code, http.Header(header)) },
	})
	req := o.requestH2(ctx)
	if o.hasBody() {
		h.body = newH2body(x, o, req.Trailer)
		req.Body = h.body
	}
	x.mu.Lock()
	if x.cause != uncut {
		x.mu.Unlock()
		cancel()
		return nil, errCut
	}
	x.h2, x.reading = h, o.hasBody()
	x.mu.Unlock()
	up := l.inst.up
	resp, err := up.h2(x.inv.cfg.MaxHeader).RoundTrip(req)
	h.mu.Lock()
	h.answered = true
	h.mu.Unlock()
	x.inv.cfg.Awake.Touch()
	if err != nil {
		if up.saidHTTP1.Load() {
			err = fmt.Errorf("%w: it answered in HTTP/1", err)
		}
		return nil, err
	}
	h.answer = resp.Body
	if headerSize(resp.Header) > x.inv.cfg.MaxHeader {
		return nil, errHeaderTooLarge
	}
	if resp.StatusCode < http.StatusOK {
		return nil, fmt.Errorf("its status %d is no status", resp.StatusCode)
	}
	return resp, nil
}

// inform passes a 1xx answer on. The transport calls it while the exchange's goroutine waits for the answer.
func (h *h2call) inform(x *exchange, code int, header http.Header) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.informed++
	switch {
	case h.informed > maxInformational:
		return errors.New("it sends informational answers without end")
	case code == http.StatusSwitchingProtocols:
		return errors.New("it switches protocols, which HTTP/2 does not know")
	case code != http.StatusContinue && x.informed != nil && !h.answered:
		x.informed.inform(&http.Response{StatusCode: code, Header: header})
	}
	return nil
}

// end gives the stream back and reports whether the request was sent whole. Nobody reads the client's body after it.
func (h *h2call) end(complete bool) bool {
	if h.body != nil {
		complete = h.body.finish(complete) && complete
	}
	h.cancel()
	if h.answer != nil {
		_ = h.answer.Close()
	}
	return complete
}

// requestH2 is the request as it is handed to the transport, without its body.
func (o *outgoing) requestH2(ctx context.Context) *http.Request {
	path, query, asked := strings.Cut(o.target, "?")
	u := &url.URL{Scheme: "http", Host: "instance", Opaque: path, RawQuery: query, ForceQuery: asked}
	if strings.HasPrefix(path, "//") {
		// An opaque part that begins so would be taken for a host.
		u.Opaque, u.RawPath = "", path
		u.Path, _ = url.PathUnescape(path)
	}
	r := (&http.Request{
		Method: o.req.Method, URL: u, Host: o.host, Header: o.headerH2(), Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: o.length,
	}).WithContext(ctx)
	if !o.hasBody() {
		r.ContentLength = 0
		return r
	}
	if o.chunked {
		// A length of 0 would stand for no body at all.
		r.ContentLength = -1
		r.Trailer = http.Header{}
		for k := range o.req.Trailer {
			if !dropHop(k) && !dropOwn(k) {
				r.Trailer[k] = nil
			}
		}
	}
	return r
}

// headerH2 is what writeHead writes, as a map.
func (o *outgoing) headerH2() http.Header {
	out := make(http.Header, len(o.header)+8)
	for k, vv := range o.header {
		if o.drops(k) {
			continue
		}
		// The transport may look at it when the client's connection already reads its next request into the same place.
		out[k] = slices.Clone(vv)
	}
	if len(out["User-Agent"]) == 0 {
		// The transport would name itself.
		out["User-Agent"] = []string{""}
	}
	if o.forward != nil {
		o.setForwarded(out)
	}
	if o.traceparent != "" {
		out["Traceparent"] = []string{o.traceparent}
	}
	if o.id != "" {
		out[HeaderInvocationID] = []string{o.id}
	}
	if o.attempt != 0 {
		out[HeaderAttempt] = []string{strconv.Itoa(o.attempt)}
	}
	if hasToken(o.header["Te"], "trailers") {
		out["Te"] = []string{"trailers"}
	}
	if o.expect {
		out["Expect"] = []string{"100-continue"}
	}
	return out
}

func (o *outgoing) setForwarded(out http.Header) {
	f := o.forward
	join := func(k, last string) {
		out[k] = []string{strings.Join(append(slices.Clone(o.received(k)), last), ", ")}
	}
	join("Forwarded", string(f.appendElement(nil)))
	ip := f.ip
	if ip == "" {
		ip = "unknown"
	}
	join("X-Forwarded-For", ip)
	if f.host != "" {
		out["X-Forwarded-Host"] = []string{f.host}
	}
	out["X-Forwarded-Proto"] = []string{f.proto}
}

// errBodyStopped ends the reading of a body that nobody wants any more.
var errBodyStopped = errors.New("the body is not wanted any more")

// h2body is the client's body as the transport reads it, which may go on after the answer has ended: once finish or Close has returned
// nobody reads the client's connection any more.
type h2body struct {
	x *exchange
	o *outgoing
	// trailer is filled in at the end of the body.
	trailer http.Header
	// whole is closed when the body has been read to its end.
	whole   chan struct{}
	stopped atomic.Bool

	// mu is held while the client's body is read.
	mu    sync.Mutex
	total int64
	err   error
}

func newH2body(x *exchange, o *outgoing, trailer http.Header) *h2body {
	return &h2body{x: x, o: o, trailer: trailer, whole: make(chan struct{})}
}

// Read reads the client's body and holds it to the bounds.
func (b *h2body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case b.stopped.Load():
		return 0, errBodyStopped
	}
	n, err := b.o.body.Read(p)
	if n > 0 {
		b.x.moved()
		if b.total += int64(n); b.total > b.o.maxBody {
			b.err = errTooLarge
			b.x.cut(cutTooLarge, nil)
			return 0, b.err
		}
	}
	b.err = err
	switch {
	case err == nil:
	case err == io.EOF:
		for k := range b.trailer {
			b.trailer[k] = slices.DeleteFunc(slices.Clone(b.o.req.Trailer[k]), func(v string) bool { return !validValue(v) })
		}
		b.x.setReading(false)
		close(b.whole)
	case !b.stopped.Load():
		b.x.cut(cutBody, err)
	}
	return n, err
}

// Close is the transport's word that it wants no more. It does not wait.
func (b *h2body) Close() error {
	b.stopped.Store(true)
	return nil
}

// finish waits a little for the end of the body after a complete answer, then ends its reading. It reports whether it was read whole.
func (b *h2body) finish(complete bool) bool {
	select {
	case <-b.whole:
		return true
	default:
	}
	if complete {
		t := time.NewTimer(bodyGrace)
		defer t.Stop()
		select {
		case <-b.whole:
			return true
		case <-t.C:
		}
	}
	b.stop()
	return false
}

// stop wakes a Read that waits for the client and returns when there is none any more.
func (b *h2body) stop() {
	b.stopped.Store(true)
	b.x.mu.Lock()
	if b.x.reading {
		b.x.unblock()
	}
	b.x.mu.Unlock()
	b.mu.Lock()
	b.mu.Unlock() //nolint:staticcheck // a Read that began before has ended then
}
