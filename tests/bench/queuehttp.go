package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/queue"
)

// httpRound is acceptance through POST /async on loopback, the client's work included.
func httpRound(ctx context.Context, add func(string, float64)) error {
	run := newNothing()
	return withQueue(ctx, run, func(q *queue.Queue) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: gateway.Public(noFunctions{run}, q, gateway.Config{}), ReadHeaderTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: acceptCallers}}
		url := "http://" + l.Addr().String() + "/async/" + run.ref.Name
		body := benchBody()
		rate, _, err := hammer(acceptCallers, acceptPerRound, func() error { return post(ctx, c, url, body) })
		add("http", rate)
		c.CloseIdleConnections()
		err = errors.Join(err, srv.Close())
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	})
}

// post hands work over.
func post(ctx context.Context, c *http.Client, url string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("POST %s: %s %s", url, resp.Status, text)
	}
	return err
}

// noFunctions is a data path that lets everything be queued and runs nothing by itself.
type noFunctions struct{ *nothing }

// ServeFunction is not asked for here.
func (noFunctions) ServeFunction(w http.ResponseWriter, _ *http.Request, _ functions.Ref, _ string) {
	w.WriteHeader(http.StatusNotImplemented)
}

// ServeInvocation is not asked for here.
func (noFunctions) ServeInvocation(w http.ResponseWriter, _ *http.Request, _ functions.Ref, _ string, _ functions.InvocationID) {
	w.WriteHeader(http.StatusNotImplemented)
}

// AllowQueued lets everything be queued.
func (n noFunctions) AllowQueued(context.Context, functions.Ref) (*functions.Revision, error) {
	return n.rev, nil
}

// Ready is always so.
func (noFunctions) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

const (
	// containerPerRound is how many invocations lie in the queue before the container may run them.
	containerPerRound = 10_000
	containerConns    = 32
	// containerSlots is the concurrency of warmSpec.
	containerSlots = 100
	// depthEvery is how often the state of the function is asked for while nothing is measured, depthLeast and depthMost the waits between two looks at
	// its depth.
	depthEvery = 20 * time.Millisecond
	depthLeast = 5 * time.Millisecond
	depthMost  = 200 * time.Millisecond
)

// containerTime is how long the calls beside which completion is told last.
var containerTime = 4 * time.Second

// containerRounds measures, with the same real container, calls over 32 connections and the completion of what lies in the queue.
func containerRounds(ctx context.Context, binary string, add func(string, float64)) error {
	s, err := startServer(ctx, binary)
	if err != nil {
		return err
	}
	return s.stopAfter(s.measureQueue(ctx, add))
}

func (s *server) measureQueue(ctx context.Context, add func(string, float64)) error {
	if err := s.deploy(ctx, "queued", "plain", warmSpec); err != nil {
		return err
	}
	c, err := client.New("unix://" + filepath.Join(s.RunDir, "control.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	for range rounds {
		// The same request as is queued: what its body costs the function is no cost of the queue.
		got, err := load(ctx, s.Public, "/fn/queued", loadOptions{conns: containerConns, d: containerTime, body: bodySize})
		if err != nil {
			return err
		}
		add("container-warm", got.RPS)
		rate, err := s.completeQueued(ctx, c)
		if err != nil {
			return err
		}
		add("container", rate)
	}
	return nil
}

// completeQueued fills the queue while calls hold every slot of the container, lets these go, and returns how many invocations a second end then.
func (s *server) completeQueued(ctx context.Context, c *client.Client) (float64, error) {
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: acceptCallers}}
	defer h.CloseIdleConnections()
	ref := functions.Ref{Namespace: functions.DefaultNamespace, Name: "queued"}
	release, err := s.hold(ctx, c, ref)
	if err != nil {
		return 0, err
	}
	defer release()
	var g errgroup.Group
	for range acceptCallers {
		g.Go(func() error {
			for range containerPerRound / acceptCallers {
				if err := post(ctx, h, "http://"+s.Public+"/async/queued", benchBody()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	fn, err := c.Function(ctx, ref)
	if err != nil {
		return 0, err
	}
	waiting := depth(fn.Queue)
	if waiting < containerPerRound*9/10 {
		return 0, fmt.Errorf("only %d invocations wait: the container's slots were not held", waiting)
	}
	release()
	// The gateway looks now and then only for callers that left: the time until then is not the queue's, and the clock begins with the first that ends.
	first, begun, err := s.awaitDepth(ctx, c, ref, func(left int) bool { return left < waiting })
	if err != nil {
		return 0, err
	}
	_, ended, err := s.awaitDepth(ctx, c, ref, func(left int) bool { return left == 0 })
	return float64(first) / ended.Sub(begun).Seconds(), err
}

// awaitDepth waits until as many of a function's invocations have not ended as are wanted, and returns how many these are, and when that was. The more
// there are to end, the longer it waits before it looks again, for each look takes from the server what is to be measured.
func (s *server) awaitDepth(ctx context.Context, c *client.Client, ref functions.Ref, wanted func(int) bool) (left int, at time.Time, err error) {
	begun, before := time.Now(), time.Time{}
	var last int
	for {
		fn, err := c.Function(ctx, ref)
		if err != nil {
			return 0, at, err
		}
		left, at = depth(fn.Queue), time.Now()
		if wanted(left) {
			return left, at, nil
		}
		if at.Sub(begun) > time.Minute {
			return 0, at, fmt.Errorf("%d invocations have not ended after a minute", left)
		}
		wait := depthLeast
		if ended := last - left; ended > 0 {
			// Half of the time that what is left will take.
			wait = min(max(wait, at.Sub(before)*time.Duration(left)/time.Duration(2*ended)), depthMost)
		}
		last, before = left, at
		select {
		case <-ctx.Done():
			return 0, at, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// hold takes every slot of the container with a call, until the function returned is called.
func (s *server) hold(ctx context.Context, c *client.Client, ref functions.Ref) (release func(), err error) {
	holding, let := context.WithCancel(ctx)
	var calls sync.WaitGroup
	release = func() {
		let()
		calls.Wait()
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range containerSlots {
		calls.Go(func() {
			r, err := http.NewRequestWithContext(holding, http.MethodGet, "http://"+s.Public+"/fn/"+ref.Name+"/sleep?ms=60000", nil)
			if err != nil {
				return
			}
			// It ends with the context, and is no figure.
			if resp, err := h.Do(r); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		fn, err := c.Function(ctx, ref)
		if err == nil && fn.Traffic.InFlight >= containerSlots {
			return release, nil
		}
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("%d calls hold a slot after ten seconds, not %d", fn.Traffic.InFlight, containerSlots)
		}
		if err != nil {
			release()
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(depthEvery):
		}
	}
}

func depth(q v1.QueueDepth) int { return q.Pending + q.Running + q.Scheduled }
