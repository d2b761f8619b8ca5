package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// proxyRetry is the wait before a server that leads, and is not reached, is tried again.
	proxyRetry = 200 * time.Millisecond
	// proxyBegin bounds the wait for a server to want the body: it looks first whether it leads.
	proxyBegin = time.Minute
	// proxyConnect bounds the connecting: a server that vanished is given up before it is replaced.
	proxyConnect = 2 * time.Second
	// proxyLook is how often a request that can be made again is looked after: whether the server that has it is still the one that leads.
	proxyLook = 500 * time.Millisecond
)

// proxy hands requests on.
type proxy struct {
	transport *http.Transport
	reverse   *httputil.ReverseProxy
}

// passing is a request that is handed on.
type passing struct {
	at, kind string
	rep      *repeatable
	// mark is what a server answers with that does not lead; nobody else knows it.
	mark string
	// client is whose request it is.
	client string
	// became is what became of it.
	became outcome
	stage  atomic.Int32
}

// The stages of a request that is handed on: its answer is waited for, has come, or is not waited for any more.
const (
	stageAsked int32 = iota
	stageBegun
	stageMoved
)

type passingKey struct{}

func passingOf(ctx context.Context) *passing { return ctx.Value(passingKey{}).(*passing) }

var (
	// errUnmet says that no connection was made, or that the server does not lead.
	errUnmet = errors.New("the server that leads is not reached")
	// errRefused says that the server that leads could not do it just then.
	errRefused = errors.New("the server that leads does not do it now")
)

func newProxy(config *tls.Config) *proxy {
	p := &proxy{transport: &http.Transport{DisableCompression: true, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 64, Protocols: new(http.Protocols), ExpectContinueTimeout: proxyBegin}}
	// A connection for each request under way: an upgrade is passed on too.
	p.transport.Protocols.SetHTTP1(true)
	dialer := &tls.Dialer{Config: config.Clone()}
	dialer.Config.NextProtos = []string{"http/1.1"}
	p.transport.DialTLSContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		ctx, cancel := context.WithTimeout(ctx, proxyConnect)
		defer cancel()
		if conn, err = dialer.DialContext(ctx, network, addr); err != nil {
			return nil, errors.Join(errUnmet, err)
		}
		return conn, nil
	}
	p.reverse = &httputil.ReverseProxy{
		Transport: p.transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			to := passingOf(r.In.Context())
			r.SetURL(&url.URL{Scheme: "https", Host: to.at})
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			to.describe(r.Out.Header)
			if r.In.ContentLength != 0 {
				r.Out.Header.Set("Expect", "100-continue")
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			to := passingOf(resp.Request.Context())
			if !to.stage.CompareAndSwap(stageAsked, stageBegun) {
				return context.Canceled
			}
			if resp.StatusCode == http.StatusMisdirectedRequest && resp.Header.Get(headerMark) == to.mark {
				return errUnmet
			}
			if code := fault.Code(resp.Header.Get(problem.HeaderError)); to.rep.left > 0 && time.Now().Before(to.rep.until) &&
				(code == fault.CodeUnavailable || code == fault.CodeDraining) {
				return errRefused
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			to := passingOf(r.Context())
			switch {
			case errors.Is(err, errUnmet):
				to.became = unmet
			case errors.Is(err, errRefused):
				to.became = refused
			case to.rep.left > 0 && (to.stage.Load() == stageMoved || r.Context().Err() == nil):
				to.became = lost
			default:
				problem.Write(w, r, fault.Wrap(fault.CodeUnavailable, err, "the server that leads did not answer").
					WithHint("whether it did what was asked is not known"))
			}
		},
	}
	return p
}

// describe puts what the other server is to know of a request into its header.
func (to *passing) describe(h http.Header) {
	set := func(name, value string) {
		if h.Del(name); value != "" {
			h.Set(name, value)
		}
	}
	set(headerKind, to.kind)
	set(headerMark, to.mark)
	set(headerClient, to.client)
	set(headerName, to.rep.id)
	if h.Del(headerAgain); to.rep.again {
		h.Set(headerAgain, "1")
	}
}

// outcome is what became of a request that was handed on.
type outcome int

const (
	// answered: there is nothing more to do. unmet: nothing was sent. lost: whether it was done is not known, but it may be done again. refused: it could
	// not be done just then.
	answered outcome = iota
	unmet
	lost
	refused
)

// pass has another server answer. But for answered, nothing was answered. Moved tells that another server leads now: whoever has the request may have
// vanished without a word.
func (p *proxy) pass(w http.ResponseWriter, r *http.Request, to *passing, moved func() bool) outcome {
	to.mark, to.client = rand.Text(), r.RemoteAddr
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), passingKey{}, to))
	defer cancel()
	if to.rep.left > 0 {
		defer to.watch(ctx, cancel, moved)()
	}
	// The transport closes the body even when it did not read it.
	out := r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = keepOpen{r.Body}
	}
	p.reverse.ServeHTTP(w, out)
	if r.Context().Err() != nil {
		return answered
	}
	return to.became
}

// watch gives the request up once moved says so, unless its answer has begun. The returned function ends that.
func (to *passing) watch(ctx context.Context, giveUp func(), moved func() bool) (end func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(proxyLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if to.stage.Load() == stageBegun {
				return
			}
			if moved() {
				if to.stage.CompareAndSwap(stageAsked, stageMoved) {
					giveUp()
				}
				return
			}
		}
	}()
	return func() {
		giveUp()
		<-done
	}
}

// keepOpen is a body that its reader does not close.
type keepOpen struct{ io.Reader }

// Close does nothing.
func (keepOpen) Close() error { return nil }

func (p *proxy) close() { p.transport.CloseIdleConnections() }
