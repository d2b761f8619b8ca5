// Command demo shows the whole road on this machine: deploy from source, call over HTTP, hand over through the queue, scale to zero,
// and a call from zero, with what each step took.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

const queued = 100

func main() {
	binary := flag.String("tatami", "bin/tatami", "the binary to show")
	function := flag.String("function", "functions/examples/hello", "the directory of the function to deploy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *function, os.Getenv("KEEP") == "1"); err != nil {
		fmt.Fprintf(os.Stderr, "demo: failed: %v\n", err)
		os.Exit(1)
	}
}

// demo is one run: the server, and the steps with what they took.
type demo struct {
	srv   *server
	steps []step
}

type step struct {
	what, note string
	took       time.Duration
}

func run(ctx context.Context, binary, function string, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("real containers need root: sudo make demo")
	}
	begun := time.Now()
	srv, err := startServer(ctx, binary)
	if err != nil {
		return err
	}
	d := &demo{srv: srv}
	d.done("start tatami up", begun, "gateway, scheduler, worker, queue and containerd in one process")
	defer func() {
		if keep && err == nil {
			fmt.Printf("\nleft running (KEEP=1): functions at http://%s, dashboard at %s\nstop it with: kill %d\n", srv.Public, srv.dashboard, srv.PID())
			return
		}
		if err == nil {
			fmt.Printf("\ndashboard: %s (it ends with the demo; KEEP=1 make demo leaves it running)\n", srv.dashboard)
		}
		if cerr := srv.Stop(); err == nil {
			err = cerr
		}
		if err == nil {
			fmt.Println("\ndemo: passed (deployed from source, called, 100 invocations queued and fetched, scaled to zero, called from zero, nothing left behind)")
		}
	}()

	for _, s := range []func(context.Context) error{
		func(ctx context.Context) error { return d.deploy(ctx, function) },
		d.call, d.queue, d.toZero, d.fromZero,
	} {
		if err := s(ctx); err != nil {
			return err
		}
	}
	d.print()
	return nil
}

func (d *demo) done(what string, begun time.Time, format string, args ...any) {
	s := step{what, fmt.Sprintf(format, args...), time.Since(begun)}
	d.steps = append(d.steps, s)
	fmt.Printf("  %-28s %8s   %s\n", s.what, short(s.took), s.note)
}

func (d *demo) deploy(ctx context.Context, dir string) error {
	begun := time.Now()
	if _, err := d.srv.CLI(ctx, "deploy", dir, "--name", "hello"); err != nil {
		return err
	}
	d.done("deploy from source", begun, "built here, uploaded, one instance ready, traffic moved")
	return nil
}

func (d *demo) call(ctx context.Context) error {
	begun := time.Now()
	got, err := d.srv.do(ctx, "GET", "/fn/hello")
	if err != nil {
		return err
	}
	if got.code != http.StatusOK {
		return fmt.Errorf("GET /fn/hello: %s: %s", got.status, got.body)
	}
	d.done("call over HTTP", begun, "GET /fn/hello: %s", strings.TrimSpace(firstLine(got.body)))
	return nil
}

func (d *demo) queue(ctx context.Context) error {
	begun := time.Now()
	ids := make([]string, queued)
	if err := parallel(queued, func(i int) error {
		got, err := d.srv.do(ctx, "POST", "/async/hello")
		if err != nil {
			return err
		}
		var v struct {
			ID string `json:"id"`
		}
		if got.code != http.StatusAccepted || json.Unmarshal([]byte(got.body), &v) != nil {
			return fmt.Errorf("POST /async/hello: %s: %s", got.status, got.body)
		}
		ids[i] = v.ID
		return nil
	}); err != nil {
		return err
	}
	d.done("hand over 100 invocations", begun, "each 202 after its invocation was synced to disk")

	begun = time.Now()
	if err := parallel(queued, func(i int) error {
		got, err := d.srv.do(ctx, "GET", "/invocations/"+ids[i]+"?wait=60s")
		if err != nil {
			return err
		}
		var v struct {
			State  string `json:"state"`
			Status int    `json:"status"`
		}
		if got.code != http.StatusOK || json.Unmarshal([]byte(got.body), &v) != nil || v.State != "succeeded" || v.Status != http.StatusOK {
			return fmt.Errorf("invocation %s: %s: %s", ids[i], got.status, got.body)
		}
		return nil
	}); err != nil {
		return err
	}
	d.done("fetch all 100 results", begun, "every one succeeded")
	return nil
}

func (d *demo) toZero(ctx context.Context) error {
	begun := time.Now()
	if err := d.srv.AwaitZero(ctx, "hello"); err != nil {
		return err
	}
	d.done("scale to zero", begun, "no instance left in any state, after the function's keep-alive")
	return nil
}

func (d *demo) fromZero(ctx context.Context) error {
	some, err := d.srv.Instances(ctx, "hello")
	if err != nil {
		return err
	}
	if len(some) > 0 {
		return fmt.Errorf("%d instances exist before the call from zero", len(some))
	}
	begun := time.Now()
	got, err := d.srv.do(ctx, "GET", "/fn/hello")
	if err != nil {
		return err
	}
	if got.code != http.StatusOK {
		return fmt.Errorf("GET /fn/hello from zero: %s: %s", got.status, got.body)
	}
	d.done("call from zero", begun, "a cold start, with these phases:")
	for phase := range strings.SplitSeq(got.header.Get("Server-Timing"), ",") {
		name, dur, _ := strings.Cut(strings.TrimSpace(phase), ";dur=")
		ms, err := time.ParseDuration(dur + "ms")
		if err != nil {
			continue
		}
		d.steps = append(d.steps, step{"  " + name, phaseMeaning(name), ms})
		fmt.Printf("  %-28s %8s   %s\n", "  "+name, short(ms), phaseMeaning(name))
	}
	begun = time.Now()
	if _, err := d.srv.do(ctx, "GET", "/fn/hello"); err != nil {
		return err
	}
	d.done("call again, warm", begun, "through the gateway to the running instance")
	return nil
}

func phaseMeaning(name string) string {
	switch name {
	case "queue":
		return "what of the wait the phases below do not account for"
	case "place":
		return "the scheduler chooses the node and tells the worker"
	case "prepare":
		return "the artifact is unpacked"
	case "create":
		return "namespaces, cgroup, root filesystem"
	case "start":
		return "the process starts"
	case "ready":
		return "the function listens"
	case "run":
		return "the function answers"
	}
	return ""
}

func (d *demo) print() {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"step", "took", ""})
	for _, s := range d.steps {
		t.AppendRow(table.Row{s.what, short(s.took), s.note})
	}
	fmt.Printf("\n%s\n", t.Render())
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 60 {
		line = line[:60] + "…"
	}
	return line
}

// parallel runs fn for 0 to n-1, eight at a time, and returns what failed.
func parallel(n int, fn func(i int) error) error {
	errs := make([]error, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				errs[i] = fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
