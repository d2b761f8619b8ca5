package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

// LogQuery picks log lines.
type LogQuery struct {
	// Instance picks one instance's lines; empty: all.
	Instance functions.InstanceID
	// Since leaves out older lines; zero leaves out none.
	Since time.Time
	// Tail is how many of the kept lines come at most; 0: all that the server keeps.
	Tail int
	// Follow goes on with lines as they are written, until the context ends.
	Follow bool
}

// Logs calls fn for each line of the function's logs, in their order, until they end or fn returns an error, which it then returns.
func (c *Client) Logs(ctx context.Context, r functions.Ref, q LogQuery, fn func(v1.LogLine) error) error {
	in, err := c.openLogs(ctx, r, q)
	if err != nil {
		return err
	}
	defer in.Close()
	return readLogs(ctx, in, q.Follow, fn)
}

func (c *Client) openLogs(ctx context.Context, r functions.Ref, q LogQuery) (io.ReadCloser, error) {
	since, follow := "", ""
	if !q.Since.IsZero() {
		since = q.Since.Format(time.RFC3339Nano)
	}
	if q.Follow {
		follow = strconv.FormatBool(true)
	}
	path := functionPath(r) + "/logs" + query("instance", string(q.Instance), "since", since, "tail", number(q.Tail), "follow", follow)
	resp, err := c.request(ctx, http.MethodGet, path, nil, func(r *http.Request) { r.Header.Set("Accept", "application/x-ndjson") })
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func readLogs(ctx context.Context, body io.Reader, follow bool, fn func(v1.LogLine) error) error {
	in := bufio.NewReader(body)
	for {
		b, err := in.ReadBytes('\n')
		if b = bytes.TrimSpace(b); len(b) > 0 {
			var l v1.LogLine
			if jerr := json.Unmarshal(b, &l); jerr != nil {
				return fault.Wrap(fault.CodeUnavailable, jerr, "the server's log stream is broken")
			}
			if ferr := fn(l); ferr != nil {
				return ferr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && !follow:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			return fault.Wrap(fault.CodeUnavailable, err, "the server ended the log stream").WithHint("tatami status")
		}
	}
}
