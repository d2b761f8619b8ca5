package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Client is a connection to a control API. Its methods may be called at the same time from many goroutines.
type Client struct {
	base   string // without a slash at the end
	server string // as it was named
	token  string
	agent  string
	http   *http.Client
}

// Option is a setting of a Client.
type Option func(*Client)

// WithToken sends the token with each request.
func WithToken(token string) Option { return func(c *Client) { c.token = token } }

// WithUserAgent names the program that calls.
func WithUserAgent(name string) Option { return func(c *Client) { c.agent = name } }

// New makes a client of a server: "unix:///path/to/socket", an absolute path of a socket, "http://host:port" or "https://host:port".
// It connects at the first call.
func New(server string, opts ...Option) (*Client, error) {
	c := &Client{server: server, agent: "tatami-client"}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
	}
	path, isSocket := strings.CutPrefix(server, "unix://")
	if strings.HasPrefix(server, "/") {
		path, isSocket = server, true
	}
	if isSocket {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		c.base = "http://localhost"
	} else {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fault.New(fault.CodeInvalidRequest, "%q is no server address", server).WithField("server").
				WithHint("write http://HOST:PORT, https://HOST:PORT or unix:///PATH")
		}
		c.base = strings.TrimSuffix(u.String(), "/")
	}
	c.http = &http.Client{Transport: tr}
	for _, o := range opts {
		o(c)
	}
	return c, nil
}

// Server returns the address that New was given.
func (c *Client) Server() string { return c.server }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request sends one request and returns the answer if its status is 2xx; the caller closes its body.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader, set func(*http.Request)) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "no request can be made of it")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if set != nil {
		set(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, FaultOf(resp)
}

// call sends in as JSON, where it is not nil, and reads the answer into out, where that is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fault.Wrap(fault.CodeInternal, err, "write the request")
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.request(ctx, method, path, body, func(r *http.Request) {
		if in != nil {
			r.Header.Set("Content-Type", "application/json")
		}
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "the server's answer to %s %s is broken", method, path)
	}
	return nil
}

// fetch calls and returns the answer.
func fetch[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, in, &out)
	return out, err
}

// fetchOne is fetch for a single resource; nil with an error.
func fetchOne[T any](ctx context.Context, c *Client, method, path string, in any) (*T, error) {
	out, err := fetch[T](ctx, c, method, path, in)
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// unreachable makes a fault of a connection that failed.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fault.Wrap(fault.CodeWaitTimeout, ctx.Err(), "no answer from %s in time", c.server)
		}
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var op *net.OpError
	broke := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if errors.As(err, &op) {
		broke, err = op.Op != "dial", op.Err // the address is in the message already
	}
	if errors.Is(err, fs.ErrPermission) {
		return fault.Wrap(fault.CodeDenied, err, "may not use %s", c.server).
			WithHint("use sudo, or join the group tatami: sudo usermod -aG tatami $USER")
	}
	if broke {
		return fault.Wrap(fault.CodeUnavailable, err, "the connection to tatami at %s broke", c.server).WithHint("tatami status")
	}
	e := fault.Wrap(fault.CodeUnavailable, err, "cannot reach tatami at %s", c.server)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return e.WithHint("start it with `sudo tatami up`, or name another server with --server or TATAMI_SERVER; a server of a cluster answers once most of them run, at the first start all of them")
	}
	return e.WithHint("tatami doctor")
}

// FaultOf makes a fault of an answer that is no 2xx, from its problem document where it has one. It reads the body.
func FaultOf(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p problem.Problem
	if json.Unmarshal(b, &p) != nil || p.Code == "" {
		p = problem.Problem{Detail: strings.TrimSpace(clip(string(b), 200)), Code: fault.Code(resp.Header.Get(problem.HeaderError))}
	}
	if p.Code == "" {
		p.Code = codeOf(resp.StatusCode)
	}
	if p.Detail == "" {
		p.Detail = fmt.Sprintf("the server answered %s", resp.Status)
	}
	e := fault.New(p.Code, "%s", p.Detail).WithField(p.Field).WithDetails(p.Details...)
	e.Hint = p.Hint
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// codeOf stands in where something between us and the server made the answer.
func codeOf(status int) fault.Code {
	switch status {
	case http.StatusUnauthorized:
		return fault.CodeUnauthenticated
	case http.StatusForbidden:
		return fault.CodeDenied
	case http.StatusNotFound:
		return fault.CodeNotFound
	case http.StatusConflict:
		return fault.CodeConflict
	case http.StatusRequestEntityTooLarge:
		return fault.CodeBodyTooLarge
	case http.StatusTooManyRequests:
		return fault.CodeRateLimited
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return fault.CodeWaitTimeout
	case http.StatusInsufficientStorage:
		return fault.CodeStorageFull
	}
	switch status / 100 {
	case 4:
		return fault.CodeInvalidRequest
	case 5:
		return fault.CodeUnavailable
	}
	return fault.CodeInternal
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
