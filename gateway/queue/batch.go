package queue

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// headerBatch tells a function how many invocations a request has.
	headerBatch = "Tatami-Batch"
	// maxBatchBody is how large the bodies of a batch's invocations are together, as long as there is more than one.
	maxBatchBody = 8 << 20
	// maxReport is the largest answer to a batch that is read.
	maxReport = 1 << 20
)

// member is an invocation of a batch.
type member struct {
	h   *held
	inv *functions.Invocation
}

// batched is an invocation as a function gets it in a batch.
type batched struct {
	ID      functions.InvocationID `json:"id"`
	Attempt int                    `json:"attempt"`
	Method  string                 `json:"method"`
	Path    string                 `json:"path"`
	Query   string                 `json:"query,omitempty"`
	Headers map[string][]string    `json:"headers,omitempty"`
	// Encoding says how Body is written: "utf-8" as it is, or "base64".
	Encoding string `json:"encoding,omitempty"`
	Body     string `json:"body,omitempty"`
}

// batchReport is what a function answers to a batch: the invocations that failed; all others succeeded.
type batchReport struct {
	Failed []struct {
		ID     functions.InvocationID `json:"id"`
		Reason string                 `json:"reason"`
	} `json:"failed"`
}

// attemptBatch makes one attempt of several invocations in one request, and writes what follows from it for each by itself.
func (q *Queue) attemptBatch(l *lane, hs []*held, lease Lease) {
	var part []member
	size := 0
	for _, h := range hs {
		if h.msg.Data != nil && len(part) > 0 && size+len(h.msg.Data) > maxBatchBody {
			l.again(h)
			continue
		}
		inv, ok := q.toDo(h)
		if !ok {
			continue
		}
		if q.runsOn(inv) != l.ref || inv.BodyRef != nil && len(hs) > 1 {
			// It goes alone: on another revision, or because it is large.
			l.again(h)
			continue
		}
		if !q.begin(h) {
			q.conclude(h, inv, outcome{verdict: cancelled})
			continue
		}
		o := outcome{attempt: functions.Attempt{Number: inv.Attempt, Started: time.Now().UTC()}}
		if q.unfit(inv, &o) {
			q.conclude(h, inv, o)
			continue
		}
		size += len(h.msg.Data)
		part = append(part, member{h, inv})
	}
	if len(part) == 0 {
		lease.Release()
		return
	}
	out := q.performBatch(part, lease)
	lease.Release()
	for i, m := range part[1:] {
		q.goAttempt(func() { q.conclude(m.h, m.inv, out[i+1]) })
	}
	q.conclude(part[0].h, part[0].inv, out[0])
}

// again has a message that was taken into a batch run alone.
func (l *lane) again(h *held) {
	l.q.goAttempt(func() {
		lease, err := l.q.run.Lease(l.q.lanesCtx, l.ref)
		l.q.attempt(l, h, lease, err)
	})
}

// performBatch makes the attempt, and returns the outcome for each.
func (q *Queue) performBatch(part []member, lease Lease) []outcome {
	started := time.Now().UTC()
	rev := lease.Revision()
	out := make([]outcome, len(part))
	for i, m := range part {
		out[i].attempt = functions.Attempt{Number: m.inv.Attempt, Started: started, Revision: rev.ID, Instance: lease.Instance(), Cold: lease.Cold()}
		if m.inv.Revision != "" {
			out[i].attempt.Revision = m.inv.Revision
		}
	}
	all := func(err error, sent bool) []outcome {
		for i := range out {
			out[i].sent = sent
			out[i] = q.failed(out[i], err)
		}
		return out
	}
	timeout := rev.Config.WithDefaults().Timeout.Std()
	ctx, cancel := context.WithTimeoutCause(q.alive, timeout,
		fault.New(fault.CodeFunctionTimeout, "%s did not finish its answer to a batch within %s, its timeout", part[0].inv.Ref(), timeout))
	defer cancel()
	if len(part) == 1 && !q.stoppable(part[0].h, cancel) {
		// The request of several goes on when one of them is cancelled.
		cancel()
	}
	r, err := q.batchRequest(ctx, part, rev.Config.Queue.Batch.Format)
	if err != nil {
		return all(err, false)
	}
	resp, err := lease.RoundTrip(r)
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
		_ = resp.Body.Close()
		if err != nil {
			err = brokenAnswer(part[0].inv, err)
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && q.alive.Err() == nil {
			err = cause
		}
		return all(err, true)
	}
	failed, err := failedOf(part, resp, answer)
	ended := time.Now().UTC()
	for i, m := range part {
		o := &out[i]
		o.sent, o.answered, o.status, o.attempt.Ended, o.attempt.Status = true, true, resp.StatusCode, ended, resp.StatusCode
		if o.verdict, o.retryAfter = judge(resp, ended); o.verdict != succeeded {
			o.reason = fmt.Sprintf("the function answered %d %s to a batch of %d", resp.StatusCode, http.StatusText(resp.StatusCode), len(part))
			continue
		}
		reason, named := failed[m.inv.ID]
		if err != nil {
			reason, named = err.Error(), true
		}
		if named {
			// Its own answer is that it failed, whatever the status of the batch is.
			o.verdict, o.reason, o.answered = retry, reason, false
			o.attempt.Error, o.attempt.Message = string(fault.CodeFunctionBadResponse), reason
		}
	}
	return out
}

// batchRequest is the request of several invocations in a format.
func (q *Queue) batchRequest(ctx context.Context, part []member, format string) (*http.Request, error) {
	bodies := make([][]byte, len(part))
	for i, m := range part {
		bodies[i] = m.inv.Body
		if m.inv.BodyRef != nil {
			in, _, err := q.OpenRequest(ctx, m.inv)
			if err != nil {
				return nil, err
			}
			bodies[i], err = io.ReadAll(in)
			_ = in.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	kind, encode := "application/json", requestsOf
	if format == functions.BatchEvents {
		kind, encode = cloudevents.TypeBatch, eventsOf
	}
	data, err := encode(part, bodies)
	if err != nil {
		return nil, fmt.Errorf("encoding a batch: %w", err)
	}
	ref := part[0].inv.Ref()
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: ref.Name + "." + ref.Namespace, Path: "/"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {kind}, headerBatch: {strconv.Itoa(len(part))}},
		Body:   io.NopCloser(bytes.NewReader(data)), ContentLength: int64(len(data)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}).WithContext(ctx)
	if len(part) == 1 {
		r.Header[headerInvocation] = []string{string(part[0].inv.ID)}
		r.Header[headerAttempt] = []string{strconv.Itoa(part[0].inv.Attempt)}
	}
	return r, nil
}

// requestsOf writes a batch as an array of requests.
func requestsOf(part []member, bodies [][]byte) ([]byte, error) {
	list := make([]batched, len(part))
	for i, m := range part {
		b := batched{
			ID: m.inv.ID, Attempt: m.inv.Attempt, Method: m.inv.Method, Path: m.inv.Path, Query: m.inv.Query, Headers: m.inv.Header,
			Encoding: "utf-8", Body: string(bodies[i]),
		}
		if !utf8.Valid(bodies[i]) {
			b.Encoding, b.Body = "base64", base64.StdEncoding.EncodeToString(bodies[i])
		}
		list[i] = b
	}
	return json.Marshal(list)
}

const (
	// extensionID and extensionAttempt are the extensions that tell of the invocation of an event in a batch.
	extensionID      = "tatamiinvocation"
	extensionAttempt = "tatamiattempt"
	// requestType is the type of the event that stands for a request without one.
	requestType = "tatami.request"
)

// eventsOf writes a batch as CloudEvents: those that the invocations were made of, and one for each request that carries none.
func eventsOf(part []member, bodies [][]byte) ([]byte, error) {
	events := make([]functions.Event, len(part))
	for i, m := range part {
		e := &events[i]
		if got, err := cloudevents.Read(m.inv.Header, bodies[i]); err == nil && len(got) == 1 {
			*e = got[0]
		} else {
			*e = functions.Event{
				ID: string(m.inv.ID), Source: "/functions/" + m.inv.Ref().String(), Type: requestType, Time: m.inv.Accepted,
				DataContentType: http.Header(m.inv.Header).Get("Content-Type"), Data: bodies[i],
			}
		}
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[extensionID], e.Extensions[extensionAttempt] = string(m.inv.ID), strconv.Itoa(m.inv.Attempt)
	}
	return cloudevents.EncodeBatch(events)
}

// failedOf reads which invocations the function says have failed, with its reasons. An answer that cannot be understood is an error: nobody knows
// then what has succeeded.
func failedOf(part []member, resp *http.Response, answer []byte) (map[functions.InvocationID]string, error) {
	if resp.StatusCode >= 300 || len(bytes.TrimSpace(answer)) == 0 {
		return nil, nil
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.CodeFunctionBadResponse, "the answer to a batch "+format, args...)
	}
	if len(answer) > maxReport {
		return nil, bad("is larger than %d bytes", maxReport)
	}
	var rep batchReport
	if err := json.Unmarshal(answer, &rep); err != nil {
		return nil, bad("is not of the form {\"failed\": [{\"id\": ...}]}: %v", err)
	}
	in := map[functions.InvocationID]bool{}
	for _, m := range part {
		in[m.inv.ID] = true
	}
	failed := map[functions.InvocationID]string{}
	for _, f := range rep.Failed {
		if !in[f.ID] {
			return nil, bad("names %.60q, which is not in it", string(f.ID))
		}
		failed[f.ID] = "the function says that it failed"
		if f.Reason != "" {
			failed[f.ID] += ": " + f.Reason[:min(len(f.Reason), 500)]
		}
	}
	return failed, nil
}
