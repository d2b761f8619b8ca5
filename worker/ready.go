package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	firstPause = time.Millisecond
	lastPause  = 10 * time.Millisecond
	// slowPause is the pause for one that was not ready after slowAfter: a hundredth more on top of that is not felt.
	slowPause = 50 * time.Millisecond
	slowAfter = 5 * time.Second
	// probePatience bounds one try.
	probePatience = 5 * time.Second
)

// awaitReady returns nil once the instance takes requests, errExited once its process has ended. One whose socket listened before its process
// began takes them at once. While its revision has not served yet, it must show that it reads from that socket.
func (w *Worker) awaitReady(in *instance, sb sandbox.Sandbox) error {
	r := in.record
	if sb.Info().Activated {
		if in.revision.State == functions.RevisionReady {
			return nil
		}
		r.proof = true
	}
	return awaitReady(in.startCtx, sb, &r)
}

func awaitReady(ctx context.Context, sb sandbox.Sandbox, r *Record) error {
	limit := r.Readiness.Timeout
	ctx, cancel := context.WithTimeout(ctx, limit.Std())
	defer cancel()
	begun, pause := time.Now(), firstPause
	why := fmt.Errorf("nothing listens on port %d", r.Port)
	if err := sb.AwaitListening(ctx); err != nil {
		return notListening(ctx, sb, notReady(limit, why, r), err)
	}
	if r.Readiness.Path == "" && !r.proof {
		return nil
	}
	probe := probeOf(sb, r)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-sb.Done():
			return errExited
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return notReady(limit, why, r)
		case <-timer.C:
		}
		err := probe(ctx)
		if err == nil {
			return nil
		}
		// A try that the end of the time cut off says less than the one before it.
		if ctx.Err() == nil {
			why = reasonOf(err, r.Port)
		}
		timer.Reset(pause)
		if pause = min(pause*3/2, lastPause); time.Since(begun) > slowAfter {
			pause = slowPause
		}
	}
}

// notListening says why an instance that does not listen is given up.
func notListening(ctx context.Context, sb sandbox.Sandbox, late, err error) error {
	select {
	case <-sb.Done():
		return errExited
	default:
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return late
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

func notReady(limit functions.Duration, why error, r *Record) error {
	f := fault.New(fault.CodeFunctionNotReady, "not ready within %s: %s", limit, why)
	if r.proof {
		return f.WithHint("readiness.activation says that the function reads from the socket that it is given (LISTEN_FDS); it must, or leave that out")
	}
	if r.Readiness.Path == "" {
		return f.WithHint("the function must listen on $PORT")
	}
	return f.WithHint("see readiness in tatami.yaml")
}

// answer is an answer to the readiness request that says no.
type answer struct {
	path   string
	status int
}

func (a *answer) Error() string { return fmt.Sprintf("GET %s answered %d", a.path, a.status) }

// dialError is a connection that was not made.
type dialError struct{ error }

func reasonOf(err error, port int) error {
	if errors.As(err, new(dialError)) {
		return fmt.Errorf("nothing listens on port %d", port)
	}
	return err
}

// probeOf returns one try of the readiness check of an instance that listens.
func probeOf(sb sandbox.Sandbox, r *Record) func(context.Context) error {
	path := r.Readiness.Path
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := sb.Dial(ctx)
		if err != nil {
			return nil, dialError{err}
		}
		return conn, nil
	}
	// One connection a try: the answer of a server that is about to be replaced must not be kept.
	transport := &http.Transport{
		DialContext:            dial,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if r.Protocol == functions.ProtocolH2C {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	url := "http://" + net.JoinHostPort("localhost", strconv.Itoa(r.Port)) + path
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probePatience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if r.proof {
			// Any answer will do, to a question about the server and about nothing that it serves.
			req.Method, req.URL.Path, req.URL.Opaque = http.MethodOptions, "", "*"
		}
		req.Header.Set("User-Agent", "tatami-readiness")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if r.proof {
			return nil
		}
		if resp.StatusCode < 200 || resp.StatusCode >= 400 {
			return &answer{path, resp.StatusCode}
		}
		return nil
	}
}
