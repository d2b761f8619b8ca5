package client

import (
	"context"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// firstRetry and lastRetry bound the wait before a lost stream is asked for again.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
	// overlap is how far back a stream that goes on begins before the last line that came: lines of several instances come in the order
	// of their capture, which may be off the order of their times by a little.
	overlap = 2 * time.Second
	// maxRecent is how many of the last lines are remembered, to know them when they come again.
	maxRecent = 4096
)

// FollowLogs is Logs with Follow that goes on after the stream was lost: it asks again until ctx ends, and fn gets no line twice and
// misses none that the server kept. lost is told of every change: the error when the stream is lost, nil when it is back. A stream that
// cannot be had the first time is an error, as is an answer that another try would not change.
func (c *Client) FollowLogs(ctx context.Context, r functions.Ref, q LogQuery, fn func(v1.LogLine) error, lost func(error)) error {
	q.Follow = true
	var last recent
	floor := q.Since
	wait, once, away := firstRetry, false, false
	for {
		var own error
		in, err := c.openLogs(ctx, r, q)
		if err == nil {
			if away {
				lost(nil)
			}
			wait, once, away = firstRetry, true, false
			known := last.known()
			err = readLogs(ctx, in, true, func(l v1.LogLine) error {
				key := keyOf(l)
				if known[key] > 0 {
					known[key]--
					return nil
				}
				if q.Tail > 0 && len(last.keys) == 0 {
					floor = l.Time
				}
				last.add(key)
				own = fn(l)
				return own
			})
			_ = in.Close()
		}
		switch {
		case own != nil:
			return own
		case ctx.Err() != nil:
			return ctx.Err()
		case !once || fault.KindOf(err) != fault.Unavailable:
			return err
		case !away:
			away = true
			lost(err)
		}
		// Whatever was asked of the past has been answered.
		q.Tail = 0
		if q.Since = last.since(); q.Since.Before(floor) {
			q.Since = floor
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
}

// lineKey tells a line from others.
type lineKey struct {
	at       int64
	instance functions.InstanceID
	stream   string
	text     string
}

func keyOf(l v1.LogLine) lineKey {
	return lineKey{at: l.Time.UnixNano(), instance: l.Instance, stream: l.Stream, text: l.Text}
}

// recent holds the last lines, as many as may come again.
type recent struct {
	keys   []lineKey
	newest int64
	// full says that a line within the overlap was forgotten.
	full bool
}

func (r *recent) add(k lineKey) {
	r.newest = max(r.newest, k.at)
	drop := 0
	for drop < len(r.keys) && r.keys[drop].at < r.newest-int64(overlap) {
		drop++
		r.full = false
	}
	if len(r.keys)-drop == maxRecent {
		drop++
		r.full = true
	}
	r.keys = append(r.keys[drop:], k)
}

// since is where to begin again, zero for the beginning.
func (r *recent) since() time.Time {
	switch {
	case len(r.keys) == 0:
		return time.Time{}
	case r.full:
		// What came before the first that is remembered would come twice.
		return time.Unix(0, r.keys[0].at+1).UTC()
	}
	return time.Unix(0, r.newest-int64(overlap)).UTC()
}

// known counts the lines that may come again.
func (r *recent) known() map[lineKey]int {
	m := make(map[lineKey]int, len(r.keys))
	for _, k := range r.keys {
		m[k]++
	}
	return m
}
