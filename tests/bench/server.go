package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/tests/process"
)

// server is a `tatami up` with default limits on directories of its own.
type server struct{ *process.Up }

func startServer(ctx context.Context, binary string, more ...string) (*server, error) {
	public, err := process.FreeAddr("")
	if err != nil {
		return nil, err
	}
	up, err := process.StartUp(ctx, binary, "ttbench", public, append([]string{"--control-addr", "", "--log-level", "warn"}, more...)...)
	if err != nil {
		return nil, err
	}
	return &server{up}, nil
}

// stopAfter ends the server and returns err and what went wrong with that. Where something did, it prints what the server has written.
func (s *server) stopAfter(err error) error {
	if err != nil {
		fmt.Printf("the server's log:\n%s\n", s.Output())
	}
	return errors.Join(err, s.Stop())
}

// deploy deploys an example under a name with settings of its own.
func (s *server) deploy(ctx context.Context, name, example, spec string) error {
	src, err := filepath.Abs(filepath.Join("functions", "examples", example))
	if err != nil {
		return err
	}
	return s.deployFile(ctx, name, src, spec)
}

// deployFile deploys what a path names.
func (s *server) deployFile(ctx context.Context, name, src, spec string) (err error) {
	file := filepath.Join(s.Dir, name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "name: %s\nsource: %s\n%s", name, src, spec), 0o644); err != nil {
		return err
	}
	_, err = s.CLI(ctx, "deploy", "--file", file)
	return err
}

// deployMany deploys further functions from the artifact of one, and returns when all have been ready and none of them runs any more. Each has an
// instance while it is deployed, which gives its room to no other one before it was idle for a while: they want little, so that many fit at once.
func (s *server) deployMany(ctx context.Context, of string, n int) error {
	c, err := client.New("unix://" + filepath.Join(s.RunDir, "control.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	fn, err := c.Function(ctx, functions.Ref{Namespace: functions.DefaultNamespace, Name: of})
	if err != nil {
		return err
	}
	req := v1.DeployRequest{Digest: fn.Current.Artifact.Digest, Config: functions.Config{Limits: functions.Limits{CPU: leastCPU, Memory: 16 * functions.MiB}}}
	req.Config.Scale.KeepAlive = functions.Duration(time.Second)
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manyAtOnce)
	for i := range n {
		g.Go(func() error {
			_, err := c.Deploy(gctx, functions.Ref{Namespace: functions.DefaultNamespace, Name: fmt.Sprintf("%s-%d", of, i)}, req)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for {
		all, err := c.Instances(ctx, client.InstanceFilter{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(i v1.Instance) bool { return i.Function != of && !i.State.Gone() }) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	fmt.Printf("deployed %d more functions in %v\n", n, time.Since(begun).Round(time.Second))
	return nil
}

func (s *server) instancePID(ctx context.Context, fn string) (int, error) {
	of, err := s.Instances(ctx, fn)
	if err != nil {
		return 0, err
	}
	if len(of) != 1 || of[0].PID == 0 {
		return 0, fmt.Errorf("want one instance of %s, have %+v", fn, of)
	}
	return of[0].PID, nil
}

// get fetches a path and returns how long it took. The connection is a new one each time, and nothing but that: a client of the standard
// library's hands it from one goroutine to the other, and each wakes up on a processor that sleeps.
func (s *server) get(ctx context.Context, path string) (took time.Duration, _ http.Header, err error) {
	begun := time.Now()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Public)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, s.Public); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took = time.Since(begun)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return took, resp.Header, err
}
