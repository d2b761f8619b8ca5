package queue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Request is what is handed over.
type Request struct {
	Ref functions.Ref
	// Method defaults to POST.
	Method string
	// Path is escaped and defaults to "/"; Query is raw.
	Path, Query string
	// Header may hold hop-by-hop fields: they are left out. It is not kept.
	Header http.Header
	// Body is the whole body; it is not kept. Where it is nil, BodyReader is read to its end.
	Body       []byte
	BodyReader io.Reader
	// Trigger is what caused it. Default "queue".
	Trigger string
	// NotBefore is when the first attempt may start; a time that has passed means at once. The function's maximum age counts from it.
	NotBefore time.Time
	// Deadline is when the last attempt may start, where that is before the function's maximum age.
	Deadline time.Time
	// RedriveOf is the invocation that this one repeats.
	RedriveOf functions.InvocationID
	// Revision is the one to run on; empty: the live one at each attempt. It is one of the function's that was ready once.
	Revision functions.RevisionID
	// Hops is how many destinations in a row led to it, functions.MaxHops at most. Of is the invocation that the last one is of.
	Hops int
	Of   functions.InvocationID
	// OrderingKey has the function's invocations with the same one run one after the other, in the order of their acceptance: one that waits for
	// another attempt keeps those behind it waiting, and no others. What is delayed takes its place when its time has come. Empty: no order.
	OrderingKey string
	// Callback is where the record is to go when the invocation has ended, beside the function's destinations: a URL that the function allows. Empty: nowhere.
	Callback string
	// Key makes a repetition harmless: of requests with one key, for one function and by one Caller, only the first becomes an invocation. It is
	// kept for a day at least, and for as long as the invocation may wait. Empty: each request is one of its own.
	Key string
	// ID is the invocation's, where whoever asks has made it. Again says that it was asked before, and nobody knows what became of it: it becomes one
	// invocation for all that. A key goes before it. Empty: the queue makes one.
	ID    functions.InvocationID
	Again bool
	// Caller is who asks, where that is known: keys of different callers have nothing to do with each other.
	Caller string

	// now is when it was handed over.
	now time.Time
}

// messageOverhead is what an invocation takes in the store beside its body, roughly.
const messageOverhead = 1 << 10

// Bounds of a request. The gateway's own bounds on what comes over HTTP are smaller.
const (
	maxPath   = 64 << 10
	maxHeader = 128 << 10
)

// Accept stores an invocation and returns its id when it is on disk. The namespace's rate is the caller's to hold. After an error with the code unavailable it may be stored all the
// same: nobody knows its id then, and it runs; whoever gave a key gets to know it by repeating the request.
func (q *Queue) Accept(ctx context.Context, r Request) (functions.InvocationID, error) {
	receipt, err := q.Submit(ctx, r)
	return receipt.ID, err
}

// Submit is Accept that tells a first request from one that was repeated under its key. Another request under the key gives key-mismatch.
func (q *Queue) Submit(ctx context.Context, r Request) (Receipt, error) {
	if hash, ok := r.ID.FunctionHash(); r.ID != "" && (!ok || hash != r.Ref.Hash()) {
		return Receipt{}, fault.New(fault.CodeInvalidRequest, "%q is no id of an invocation of %s", r.ID, r.Ref).WithField("id")
	}
	rev, err := q.mayTake(ctx, &r)
	if err != nil {
		return Receipt{}, err
	}
	if r.Key != "" {
		return q.submitKeyed(ctx, &r, rev)
	}
	if r.Again {
		if _, err := q.Lookup(ctx, r.ID, 0); fault.KindOf(err) != fault.NotFound {
			return Receipt{ID: r.ID}, err
		}
	}
	t := q.tallyOf(r.Ref)
	if err := t.take(rev.Config.Queue.MaxPending); err != nil {
		return Receipt{}, err
	}
	inv := r.invocation(rev)
	if err := q.store(ctx, &r, &inv, rev.Config.Queue.Fast()); err != nil {
		t.ended(inv.ID)
		return Receipt{}, err
	}
	return Receipt{ID: inv.ID}, nil
}

// mayTake checks the request and whether there is a queue, a function and room for it.
func (q *Queue) mayTake(ctx context.Context, r *Request) (*functions.Revision, error) {
	if err := r.complete(); err != nil {
		return nil, err
	}
	if err := q.waitReady(ctx); err != nil {
		return nil, err
	}
	select {
	case <-q.ending:
		return nil, fault.New(fault.CodeDraining, "the gateway is stopping and takes no more work").WithRetryAfter(time.Second)
	default:
	}
	rev, err := q.run.Lookup(ctx, r.Ref)
	if err != nil {
		return nil, err
	}
	if r.Revision != "" {
		if _, err := q.pin(ctx, r.Ref, r.Revision); err != nil {
			return nil, err
		}
	}
	if r.Callback != "" {
		if err := rev.Config.Queue.Callbacks.Check(r.Callback); err != nil {
			return nil, err
		}
	}
	// The message holds the body in base64.
	return rev, q.bus.RoomFor(int64(len(r.Body))*4/3 + messageOverhead)
}

// invocation is what becomes of the request, under an id of its own, without its body.
func (r *Request) invocation(rev *functions.Revision) functions.Invocation {
	now := r.now.UTC()
	if r.ID == "" {
		r.ID = functions.NewInvocationID(r.Ref)
	}
	inv := functions.Invocation{
		Schema: functions.Schema, ID: r.ID, Namespace: r.Ref.Namespace, Function: r.Ref.Name,
		Trigger: r.Trigger, Method: r.Method, Path: r.Path, Query: r.Query, Header: endToEnd(r.Header), Body: r.Body,
		Accepted: now, Deadline: now.Add(rev.Config.Queue.MaxAge.Std()), Attempt: 1, RedriveOf: r.RedriveOf, OrderingKey: r.OrderingKey,
		Revision: r.Revision, Of: r.Of, Hops: r.Hops, Callback: r.Callback,
	}
	if r.delayed() {
		inv.NotBefore = r.NotBefore.UTC()
		inv.Deadline = inv.NotBefore.Add(rev.Config.Queue.MaxAge.Std())
	}
	if !r.Deadline.IsZero() && r.Deadline.Before(inv.Deadline) {
		inv.Deadline = r.Deadline.UTC()
	}
	return inv
}

// store takes the body, writes the invocation and waits for the disk; fast does not wait.
func (q *Queue) store(ctx context.Context, r *Request, inv *functions.Invocation, fast bool) error {
	var streams []string
	if err := q.takeBody(ctx, r, inv); err != nil {
		return err
	}
	if !fast {
		streams = append(streams, bus.StreamInvocations)
	}
	if inv.BodyRef != nil && !fast {
		streams = append(streams, q.bus.Bodies().Stream())
	}
	if err := q.put(ctx, inv, streams...); err != nil {
		return err
	}
	q.arrived(inv)
	return nil
}

// put publishes the invocation and waits until the streams are on disk, if any are named.
func (q *Queue) put(ctx context.Context, inv *functions.Invocation, streams ...string) error {
	m, err := q.messageOf(inv)
	if err != nil {
		return err
	}
	if inv.NotBefore.IsZero() && len(streams) > 0 {
		m.Header[jetstream.MsgIDHeader] = []string{string(inv.ID)}
		return q.bus.Fault(q.bus.StoreDurably(ctx, m, streams...), "storing the invocation")
	}
	if !inv.NotBefore.IsZero() {
		q.tallyOf(inv.Ref()).schedule(inv.ID)
	}
	if err := q.publish(ctx, m, string(inv.ID)); err != nil {
		return err
	}
	if !inv.NotBefore.IsZero() {
		q.alarms.set(inv.ID, inv.NotBefore)
	}
	if len(streams) == 0 {
		return nil
	}
	return q.bus.Barrier(ctx, streams...)
}

// arrived tells the function's lane. A lane is there for what is scheduled, too: it takes what comes due.
func (q *Queue) arrived(inv *functions.Invocation) {
	hash, _ := inv.ID.FunctionHash()
	n := 1
	if !inv.NotBefore.IsZero() {
		n = 0
	}
	q.arrive(inv.Ref(), hash, n)
}

// takeBody puts the body into the invocation, or into the object store where it is large.
func (q *Queue) takeBody(ctx context.Context, r *Request, inv *functions.Invocation) error {
	if r.Body == nil && r.BodyReader != nil {
		head, err := io.ReadAll(io.LimitReader(r.BodyReader, q.cfg.InlineBody+1))
		if err != nil {
			return readFault(err)
		}
		if int64(len(head)) <= q.cfg.InlineBody {
			inv.Body = head
			return q.bus.RoomFor(int64(len(head)) * 4 / 3)
		}
		return q.spillRequest(ctx, inv, io.MultiReader(bytes.NewReader(head), r.BodyReader))
	}
	if int64(len(r.Body)) > q.cfg.InlineBody {
		inv.Body = nil
		return q.spillRequest(ctx, inv, bytes.NewReader(r.Body))
	}
	return nil
}

func (q *Queue) spillRequest(ctx context.Context, inv *functions.Invocation, body io.Reader) error {
	ref, err := q.spill(ctx, bus.BodyObject(inv.ID, "request"), &claiming{body, q.bus}, q.cfg.MaxBody)
	if errors.Is(err, errTooLarge) {
		return fault.New(fault.CodeBodyTooLarge, "the body is larger than %d bytes", q.cfg.MaxBody)
	}
	if err != nil {
		return readFault(err)
	}
	inv.BodyRef = ref
	return nil
}

var errTooLarge = errors.New("too large")

// spill stores a body of at most limit bytes in the object store.
func (q *Queue) spill(ctx context.Context, name string, body io.Reader, limit int64) (*functions.BodyRef, error) {
	sum := sha256.New()
	size, err := q.bus.Bodies().Put(ctx, name, io.TeeReader(&bounded{r: body, left: limit}, sum))
	if err != nil {
		return nil, err
	}
	return &functions.BodyRef{Object: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// claiming asks for room for what it reads.
type claiming struct {
	r   io.Reader
	bus *bus.Bus
}

func (c *claiming) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		if full := c.bus.RoomFor(int64(n)); full != nil {
			return 0, full
		}
	}
	return n, err
}

// bounded fails with errTooLarge beyond its bound.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// readFault gives an error of the caller's body its code; errors of the store keep theirs.
func readFault(err error) error {
	var large *http.MaxBytesError
	switch {
	case fault.From(err) != nil:
		return err
	case errors.As(err, &large):
		return fault.New(fault.CodeBodyTooLarge, "the body is larger than %d bytes", large.Limit)
	}
	return fault.Wrap(fault.CodeInvalidRequest, err, "the body ended early")
}

// complete fills in defaults and checks the request.
func (r *Request) complete() error {
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if r.Trigger == "" {
		r.Trigger = "queue"
	}
	r.now = time.Now()
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.CodeInvalidRequest, format, args...).WithField(field)
	}
	if err := r.Ref.Validate(); err != nil {
		return err
	}
	if r.Key != "" {
		if err := functions.CheckKey("Idempotency-Key", r.Key); err != nil {
			return err
		}
	}
	if r.OrderingKey != "" {
		if err := functions.CheckKey("Tatami-Ordering-Key", r.OrderingKey); err != nil {
			return err
		}
	}
	if r.Hops < 0 || r.Hops > functions.MaxHops {
		return bad(HeaderDepth, "%d destinations in a row led to it, at most %d may: do they lead in a circle?", r.Hops, functions.MaxHops)
	}
	if !isToken(r.Method) || len(r.Method) > 32 {
		return bad("method", "%.40q is no method", r.Method)
	}
	if late := r.now.Add(MaxDelay); r.NotBefore.After(late) {
		return bad("notBefore", "%s is more than %d days away", r.NotBefore.UTC().Format(time.RFC3339), MaxDelay/(24*time.Hour))
	}
	if !r.Deadline.IsZero() && r.NotBefore.After(r.Deadline) {
		return bad("notBefore", "it is behind the deadline, %s", r.Deadline.UTC().Format(time.RFC3339))
	}
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return bad("method", "%s cannot be queued", r.Method)
	}
	if !strings.HasPrefix(r.Path, "/") || !printable(r.Path) || len(r.Path) > maxPath {
		return bad("path", "the path does not begin with '/', holds a space or a control character, or is longer than %d bytes", maxPath)
	}
	if _, err := url.PathUnescape(r.Path); err != nil {
		return bad("path", "the path is not escaped as it must be: %v", err)
	}
	if !printable(r.Query) || len(r.Query) > maxPath {
		return bad("query", "the query holds a space or a control character, or is longer than %d bytes", maxPath)
	}
	size := 0
	for k, vs := range r.Header {
		if !isToken(k) {
			return bad("header", "%.40q is no name of a header field", k)
		}
		for _, v := range vs {
			size += len(k) + len(v) + 4
			if strings.ContainsAny(v, "\r\n\x00") {
				return bad("header", "the header field %s holds a line break or a NUL byte", k)
			}
		}
	}
	if size > maxHeader {
		return fault.New(fault.CodeHeaderTooLarge, "the header has %d bytes, at most %d can be queued", size, maxHeader)
	}
	return nil
}

// printable reports whether s has visible bytes only.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// endToEnd copies the header without the fields that concern one connection.
func endToEnd(h http.Header) map[string][]string { return endOnly(maps.Clone(h)) }

// endOnly takes the fields that concern one connection out of the header; nil where there is none.
func endOnly(h http.Header) map[string][]string {
	if len(h) == 0 {
		return nil
	}
	named := h["Connection"]
	for k := range h {
		if hopByHop(k) {
			delete(h, k)
		}
	}
	for _, list := range named {
		for name := range strings.SplitSeq(list, ",") {
			delete(h, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	return h
}

func hopByHop(key string) bool {
	switch key {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Content-Length", "Expect":
		return true
	}
	return false
}
