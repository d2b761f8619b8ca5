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
)

// proxy hands requests on.
type proxy struct {
	transport *http.Transport
	reverse   *httputil.ReverseProxy
}

// passing is what a request that is handed on carries along.
type passing struct {
	at, kind string
	// mark is what a server answers with that does not lead; nobody else knows it.
	mark string
	// unmet is set where a server that leads was not reached, so that nobody has seen the body; lost where one was, and left no answer.
	unmet, lost bool
	// repeatable says that what is asked may be asked twice.
	repeatable bool
}

type passingKey struct{}

// errUnmet says that no connection was made.
var errUnmet = errors.New("the server that leads is not reached")

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
			to := r.In.Context().Value(passingKey{}).(*passing)
			r.SetURL(&url.URL{Scheme: "https", Host: to.at})
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.Out.Header.Set(headerKind, to.kind)
			r.Out.Header.Set(headerMark, to.mark)
			if r.In.ContentLength != 0 {
				r.Out.Header.Set("Expect", "100-continue")
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusMisdirectedRequest && resp.Header.Get(headerMark) == resp.Request.Context().Value(passingKey{}).(*passing).mark {
				return errUnmet
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			to := r.Context().Value(passingKey{}).(*passing)
			if to.unmet = errors.Is(err, errUnmet); to.unmet {
				return
			}
			if to.lost = to.repeatable && r.Context().Err() == nil; to.lost {
				return
			}
			problem.Write(w, r, fault.Wrap(fault.CodeUnavailable, err, "the server that leads did not answer").
				WithHint("whether it did what was asked is not known"))
		},
	}
	return p
}

// outcome is what became of a request that was handed on.
type outcome int

const (
	// answered: there is nothing more to do. unmet: nothing was sent. lost: whether it was done is not known, but it may be done again.
	answered outcome = iota
	unmet
	lost
)

// pass has the server at an address answer. But for answered, nothing was answered.
func (p *proxy) pass(w http.ResponseWriter, r *http.Request, at, kind string, repeatable bool) outcome {
	to := &passing{at: at, kind: kind, mark: rand.Text(), repeatable: repeatable}
	// The transport closes the body even when it did not read it.
	out := r.WithContext(context.WithValue(r.Context(), passingKey{}, to))
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = keepOpen{r.Body}
	}
	p.reverse.ServeHTTP(w, out)
	switch {
	case to.unmet:
		return unmet
	case to.lost:
		return lost
	}
	return answered
}

// keepOpen is a body that its reader does not close.
type keepOpen struct{ io.Reader }

// Close does nothing.
func (keepOpen) Close() error { return nil }

func (p *proxy) close() { p.transport.CloseIdleConnections() }
