package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

// pollFor is how long one question for a result waits for it.
const pollFor = "30s"

// handed is the answer to an invocation that was handed over.
type handed struct {
	ID functions.InvocationID `json:"id"`
}

// result is what the public listener tells of a queued invocation.
type result struct {
	ID       functions.InvocationID    `json:"id"`
	State    functions.InvocationState `json:"state"`
	Reason   string                    `json:"reason,omitempty"`
	Attempts []functions.Attempt       `json:"attempts"`
	Status   int                       `json:"status,omitempty"`
	Header   map[string][]string       `json:"headers,omitempty"`
	Body     string                    `json:"body,omitempty"`
	// Encoding is "utf-8" or "base64"; empty where the body is to be fetched at BodyLocation.
	Encoding     string `json:"encoding,omitempty"`
	BodyLocation string `json:"bodyLocation,omitempty"`
}

// accepted prints the id of an invocation that was handed over, or waits for its result.
func (a *app) accepted(ctx context.Context, hc *http.Client, v invocation, resp *http.Response) error {
	if resp.StatusCode != http.StatusAccepted {
		if resp.StatusCode/100 == 2 {
			return fault.New(fault.CodeInternal, "%s answered %s, not 202: it did not take the invocation", v.base, resp.Status)
		}
		return client.FaultOf(resp)
	}
	var h handed
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil || h.ID == "" {
		return fault.New(fault.CodeInternal, "%s took the invocation and gave no id", v.base)
	}
	if !v.wait {
		if a.machine() {
			return a.encode(h)
		}
		a.print("%s\n", h.ID)
		a.talk("accepted; the result: tatami queue show %s\n", h.ID)
		return nil
	}
	res, err := waitResult(ctx, hc, v, h.ID)
	if err != nil {
		return err
	}
	return a.printResult(ctx, hc, v, res)
}

func waitResult(ctx context.Context, hc *http.Client, v invocation, id functions.InvocationID) (*result, error) {
	at := strings.TrimSuffix(v.base, "/") + "/invocations/" + url.PathEscape(string(id)) + "?wait=" + pollFor
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := hc.Do(req)
		if err != nil {
			if err := v.unreachable(ctx, err); fault.KindOf(err) != fault.Timeout {
				return nil, err
			}
			return nil, fault.New(fault.CodeWaitTimeout, "%s has no result within %s; it goes on", id, functions.Duration(v.timeout)).
				WithHint("tatami queue show %s", id)
		}
		res, err := readResult(resp)
		if err != nil || res.State.Terminal() {
			return res, err
		}
	}
}

func readResult(resp *http.Response) (*result, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, client.FaultOf(resp)
	}
	var r result
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "the result is broken")
	}
	return &r, nil
}

// printResult prints the body of a result; one that did not succeed is an error.
func (a *app) printResult(ctx context.Context, hc *http.Client, v invocation, r *result) error {
	if a.machine() {
		if err := a.encode(r); err != nil {
			return err
		}
	} else if r.Status != 0 {
		if v.include {
			a.print("HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
			_ = http.Header(r.Header).Write(a.stdout)
			a.print("\r\n")
		}
		if err := a.printBody(ctx, hc, v, r); err != nil {
			return err
		}
		a.afterBody()
	}
	if r.State == functions.StateSucceeded {
		a.talk("%s\n", a.paint(a.errTTY, dim, fmt.Sprintf("%s · %s · %s · %s", v.ref, r.State, many(len(r.Attempts), "attempt"), r.ID)))
		return nil
	}
	e := fault.New(failureOf(r), "%s is %s: %s", r.ID, r.State, r.Reason).WithHint("tatami queue show %s", r.ID)
	for _, t := range r.Attempts {
		e.Details = append(e.Details, attemptText(t))
	}
	return e
}

func (a *app) printBody(ctx context.Context, hc *http.Client, v invocation, r *result) error {
	switch {
	case r.Encoding == "base64":
		body, err := base64.StdEncoding.DecodeString(r.Body)
		if err != nil {
			return fault.Wrap(fault.CodeUnavailable, err, "the result's body is broken")
		}
		_, _ = a.stdout.Write(body)
		return nil
	case r.Encoding != "" || r.BodyLocation == "":
		_, _ = io.WriteString(a.stdout, r.Body)
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(v.base, "/")+r.BodyLocation, nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return v.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return client.FaultOf(resp)
	}
	if _, err := io.Copy(a.stdout, resp.Body); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fault.Wrap(fault.CodeUnavailable, err, "the result's body broke off")
	}
	return nil
}

// failureOf gives an invocation that did not succeed the code of its last attempt.
func failureOf(r *result) fault.Code {
	if n := len(r.Attempts); n > 0 {
		if c := fault.Code(r.Attempts[n-1].Error); slices.Contains(fault.Codes(), c) {
			return c
		}
	}
	return fault.CodeFunctionBadResponse
}
