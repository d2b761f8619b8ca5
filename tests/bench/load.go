package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// loadResult is what one run of the load generator measured.
type loadResult struct {
	Requests int     `json:"requests"`
	RPS      float64 `json:"rps"`
	P50us    float64 `json:"p50us"`
	P99us    float64 `json:"p99us"`
	// Refused counts the requests among them that were answered 429.
	Refused int `json:"refused,omitempty"`
}

// loadOptions say how load asks. With a rate requests are sent on a schedule, open loop, and latencies count from the time each was due.
type loadOptions struct {
	conns int
	d     time.Duration
	// rate is per second over all connections; 0: as fast as answers come.
	rate float64
	// netns is a process in whose network namespace the generator runs, 0 for that of this process.
	netns int
	// refusals lets answers be 429.
	refusals bool
	// body is the length of the requests' body; 0: they have none, and are GET.
	body int
}

// load runs the load generator as a process of its own.
func load(ctx context.Context, addr, path string, o loadOptions) (loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return loadResult{}, err
	}
	args := []string{self, "load", "-addr", addr, "-path", path, "-c", strconv.Itoa(o.conns), "-d", o.d.String(), "-rate", strconv.FormatFloat(o.rate, 'f', 2, 64)}
	if o.body != 0 {
		args = append(args, "-body", strconv.Itoa(o.body))
	}
	if o.refusals {
		args = append(args, "-refusals")
	}
	if o.netns != 0 {
		args = append([]string{"nsenter", "--net", "--target", strconv.Itoa(o.netns), "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return loadResult{}, fmt.Errorf("load on %s%s: %w", addr, path, err)
	}
	var r loadResult
	return r, json.Unmarshal(out, &r)
}

func loadMain(args []string) int {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	addr := f.String("addr", "", "host:port")
	path := f.String("path", "/", "path")
	var o loadOptions
	f.IntVar(&o.conns, "c", 1, "connections")
	f.DurationVar(&o.d, "d", time.Second, "duration")
	f.Float64Var(&o.rate, "rate", 0, "requests per second over all connections; 0: as fast as answers come")
	f.BoolVar(&o.refusals, "refusals", false, "answers may be 429")
	f.IntVar(&o.body, "body", 0, "length of the requests' body; 0: GET")
	_ = f.Parse(args)
	r, err := generate(*addr, *path, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

func generate(addr, path string, o loadOptions) (loadResult, error) {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n")
	if o.body > 0 {
		request = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", path, o.body, strings.Repeat("x", o.body))
	}
	hists := make([]*hdrhistogram.Histogram, o.conns)
	errs := make([]error, o.conns)
	refused := make([]int, o.conns)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range o.conns {
		hists[i] = hdrhistogram.New(1, int64(time.Minute/time.Microsecond)*1000, 3)
		wg.Go(func() {
			refused[i], errs[i] = one(addr, request, hists[i], begun, o, i)
		})
	}
	wg.Wait()
	took := time.Since(begun)
	if err := errors.Join(errs...); err != nil {
		return loadResult{}, err
	}
	sum := hists[0]
	for _, h := range hists[1:] {
		sum.Merge(h)
	}
	n, no := int(sum.TotalCount()), 0
	for _, r := range refused {
		no += r
	}
	return loadResult{
		Refused:  no,
		Requests: n, RPS: float64(n) / took.Seconds(),
		P50us: float64(sum.ValueAtQuantile(50)) / 1000, P99us: float64(sum.ValueAtQuantile(99)) / 1000,
	}, nil
}

// one sends requests on one connection, each after the answer to the one before, and records latencies in nanoseconds. It returns how many were
// refused.
func one(addr string, request []byte, h *hdrhistogram.Histogram, begun time.Time, o loadOptions, index int) (refused int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	interval := time.Duration(0)
	due := begun
	if o.rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(o.conns) / o.rate)
		due = begun.Add(interval * time.Duration(index) / time.Duration(o.conns))
	}
	for time.Since(begun) < o.d {
		sent := time.Now()
		if interval > 0 {
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
			sent = due
			due = due.Add(interval)
		}
		if _, err := c.Write(request); err != nil {
			return refused, err
		}
		status, err := skipResponse(r)
		switch {
		case err != nil:
			return refused, err
		case status == "429" && o.refusals:
			refused++
		case status != "200":
			return refused, fmt.Errorf("answer %s", status)
		}
		if err := h.RecordValue(max(1, int64(time.Since(sent)))); err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// skipResponse reads one response with a Content-Length and returns its status.
func skipResponse(r *bufio.Reader) (status string, err error) {
	status, length, err := readHead(r, nil)
	if err != nil {
		return "", err
	}
	_, err = r.Discard(length)
	return status, err
}

// readHead reads the head of a response with a Content-Length and shows each line of its header to see, which may be nil.
func readHead(r *bufio.Reader, see func(string)) (status string, length int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", 0, err
	}
	if len(line) < 12 {
		return "", 0, fmt.Errorf("answer %q", line)
	}
	status = string(line[9:12])
	length = -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		if len(line) <= 2 {
			break
		}
		if see != nil {
			see(string(line))
		}
		if len(line) > 16 && strings.EqualFold(string(line[:15]), "Content-Length:") {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[15:]))); err != nil {
				return "", 0, err
			}
		}
	}
	if length < 0 {
		return "", 0, errors.New("an answer without Content-Length")
	}
	return status, length, nil
}
