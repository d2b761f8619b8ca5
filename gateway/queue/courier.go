package queue

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/secret"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// deliveryAge is for how long a delivery is tried, deliveryRetries how often again, deliveryTimeout how long one attempt may take.
	deliveryAge     = 24 * time.Hour
	deliveryRetries = 10
	deliveryTimeout = 30 * time.Second
	// deliverySlots is how many deliveries of one queue are under way at once.
	deliverySlots = 16
	// keptReply is how much of a destination's answer is kept, in bytes.
	keptReply = 4 << 10
)

// headerSignature signs what goes to a URL: t=SECONDS,v1=HEX with the HMAC-SHA256 of the time, a dot and the body, one v1 for each secret.
const headerSignature = "Tatami-Signature"

// paths is the data path of all queues: a function's own runs on its instances, one of deliveries is carried by the courier.
type paths struct {
	functions DataPath
	courier   *courier
}

func (p paths) Lookup(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	if _, _, delivery := ref.Delivers(); delivery {
		rev, _, err := p.courier.look(ctx, ref)
		return rev, err
	}
	return p.functions.Lookup(ctx, ref)
}

func (p paths) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	if _, _, delivery := ref.Delivers(); delivery {
		return p.courier.lease(ctx, ref)
	}
	return p.functions.Lease(ctx, ref)
}

func (p paths) SetBacklog(ref functions.Ref, n int) {
	if _, _, delivery := ref.Delivers(); !delivery {
		p.functions.SetBacklog(ref, n)
	}
}

// courier takes records to destinations that are no functions: to URLs and to subjects. It is safe for concurrent use.
type courier struct {
	functions DataPath
	nc        *nats.Conn
	client    *http.Client

	mu sync.Mutex
	// slots bound the deliveries of each queue.
	slots map[functions.Ref]chan struct{}
}

func newCourier(fns DataPath, nc *nats.Conn) *courier {
	return &courier{
		functions: fns, nc: nc, slots: map[functions.Ref]chan struct{}{},
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
				MaxIdleConnsPerHost: 4, MaxIdleConns: 256, IdleConnTimeout: time.Minute, DisableCompression: true, ForceAttemptHTTP2: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// close ends the connections that nobody uses.
func (c *courier) close() { c.client.CloseIdleConnections() }

// look returns the destination that a queue of deliveries leads to now, and the revision that stands for it.
func (c *courier) look(ctx context.Context, ref functions.Ref) (*functions.Revision, functions.Destination, error) {
	of, end, _ := ref.Delivers()
	live, err := c.functions.Lookup(ctx, of)
	if err != nil {
		return nil, functions.Destination{}, err
	}
	dest := live.Config.Queue.OnSuccess
	switch end {
	case functions.EndFailure:
		dest = live.Config.Queue.OnFailure
	case functions.EndCallback:
		// Where to is each delivery's own.
		dest = functions.Destination{Secret: live.Config.Queue.Callbacks.Secret}
	}
	if dest.URL == "" && dest.Subject == "" && end != functions.EndCallback {
		return nil, dest, &finalError{fault.New(fault.CodeDestinationFailed, "%s has no destination for its %s any more", of, end)}
	}
	retries := deliveryRetries
	rev := &functions.Revision{Schema: functions.Schema, ID: live.ID, Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady}
	rev.Config.Timeout = functions.Duration(deliveryTimeout)
	rev.Config.Queue = functions.Queue{Retries: &retries, MaxAge: functions.Duration(deliveryAge), Callbacks: live.Config.Queue.Callbacks}
	rev.Config = rev.Config.WithDefaults()
	return rev, dest, nil
}

func (c *courier) lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	c.mu.Lock()
	slots := c.slots[ref]
	if slots == nil {
		slots = make(chan struct{}, deliverySlots)
		c.slots[ref] = slots
	}
	c.mu.Unlock()
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fault.Wrap(fault.CodeDraining, ctx.Err(), "waiting to deliver")
	}
	rev, dest, err := c.look(ctx, ref)
	if err != nil {
		<-slots
		return nil, err
	}
	return &errand{c: c, rev: rev, dest: dest, release: sync.OnceFunc(func() { <-slots })}, nil
}

// errand is the right to one delivery.
type errand struct {
	c       *courier
	rev     *functions.Revision
	dest    functions.Destination
	release func()
}

func (e *errand) Release()                       { e.release() }
func (e *errand) Revision() *functions.Revision  { return e.rev }
func (e *errand) Instance() functions.InstanceID { return "" }
func (e *errand) Cold() bool                     { return false }

// RoundTrip makes the delivery: r's body and header go to the destination.
func (e *errand) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if e.dest.Subject != "" {
		return e.c.publish(r, body, bus.DestinationSubject(e.rev.Namespace, e.dest.Subject))
	}
	to := e.dest.URL
	if to == "" {
		to = r.Header.Get(functions.HeaderCallback)
		if err := e.rev.Config.Queue.Callbacks.Check(to); err != nil {
			return nil, &finalError{fault.Wrap(fault.CodeDestinationFailed, err, "the callback's URL")}
		}
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, &finalError{fault.Wrap(fault.CodeDestinationFailed, err, "the destination's URL")}
	}
	for k, v := range r.Header {
		out.Header[k] = v
	}
	delete(out.Header, functions.HeaderCallback)
	out.Header["User-Agent"] = []string{"tatami"}
	if e.dest.Secret != (functions.SecretRef{}) {
		secrets, err := secret.Read(e.dest.Secret)
		if err != nil {
			return nil, fault.Wrap(fault.CodeDestinationFailed, err, "signing what goes to the destination")
		}
		out.Header[headerSignature] = []string{sign(secrets, time.Now(), body)}
	}
	resp, err := e.c.client.Do(out)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fault.Wrap(fault.CodeDestinationFailed, err, "the destination does not answer")
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		return nil, &finalError{fault.New(fault.CodeDestinationFailed, "the destination answered %s: redirects are not followed", resp.Status)}
	}
	resp.Body = &firstBytes{io.LimitReader(resp.Body, keptReply), resp.Body}
	return resp, nil
}

// publish hands the record to the server under a subject. Nobody may listen: what is published is delivered.
func (c *courier) publish(r *http.Request, body []byte, subject string) (*http.Response, error) {
	m := &nats.Msg{Subject: subject, Data: body, Header: nats.Header{}}
	for k, v := range r.Header {
		m.Header[k] = v
	}
	err := c.nc.PublishMsg(m)
	if err == nil {
		err = c.nc.FlushWithContext(r.Context())
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeDestinationFailed, err, "publishing on %s", subject)
	}
	return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// firstBytes is the beginning of a body.
type firstBytes struct {
	io.Reader
	io.Closer
}

// sign is the value of the signature's header.
func sign(secrets [][]byte, now time.Time, body []byte) string {
	at := strconv.FormatInt(now.Unix(), 10)
	var b strings.Builder
	b.WriteString("t=" + at)
	for _, s := range secrets {
		mac := hmac.New(sha256.New, s)
		mac.Write([]byte(at + "."))
		mac.Write(body)
		b.WriteString(",v1=" + hex.EncodeToString(mac.Sum(nil)))
	}
	return b.String()
}
