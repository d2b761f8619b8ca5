package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
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
}

// load runs the load generator as a process of its own, inside the network namespace of process netnsOf unless that is 0. With rate > 0
// requests are sent on a schedule, open loop, and latencies count from the time each was due.
func load(ctx context.Context, addr, path string, conns int, d time.Duration, rate float64, netnsOf int) (loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return loadResult{}, err
	}
	args := []string{self, "load", "-addr", addr, "-path", path, "-c", strconv.Itoa(conns), "-d", d.String(), "-rate", strconv.FormatFloat(rate, 'f', 2, 64)}
	if netnsOf != 0 {
		args = append([]string{"nsenter", "--net", "--target", strconv.Itoa(netnsOf), "--"}, args...)
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
	conns := f.Int("c", 1, "connections")
	d := f.Duration("d", time.Second, "duration")
	rate := f.Float64("rate", 0, "requests per second over all connections; 0: as fast as answers come")
	_ = f.Parse(args)
	r, err := generate(*addr, *path, *conns, *d, *rate)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

func generate(addr, path string, conns int, d time.Duration, rate float64) (loadResult, error) {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n")
	hists := make([]*hdrhistogram.Histogram, conns)
	errs := make([]error, conns)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		hists[i] = hdrhistogram.New(1, int64(time.Minute/time.Microsecond)*1000, 3)
		wg.Go(func() {
			errs[i] = one(addr, request, hists[i], begun, d, rate/float64(conns), i, conns)
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
	n := int(sum.TotalCount())
	return loadResult{
		Requests: n, RPS: float64(n) / took.Seconds(),
		P50us: float64(sum.ValueAtQuantile(50)) / 1000, P99us: float64(sum.ValueAtQuantile(99)) / 1000,
	}, nil
}

// one sends requests on one connection, each after the answer to the one before, and records latencies in nanoseconds.
func one(addr string, request []byte, h *hdrhistogram.Histogram, begun time.Time, d time.Duration, rate float64, index, conns int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	interval := time.Duration(0)
	due := begun
	if rate > 0 {
		interval = time.Duration(float64(time.Second) / rate)
		due = begun.Add(interval * time.Duration(index) / time.Duration(conns))
	}
	for time.Since(begun) < d {
		sent := time.Now()
		if interval > 0 {
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
			sent = due
			due = due.Add(interval)
		}
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := skipResponse(r); err != nil {
			return err
		}
		if err := h.RecordValue(max(1, int64(time.Since(sent)))); err != nil {
			return err
		}
	}
	return nil
}

// skipResponse reads one response with a Content-Length and fails unless its status is 200.
func skipResponse(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return fmt.Errorf("answer %q", line)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > 16 && strings.EqualFold(string(line[:15]), "Content-Length:") {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[15:]))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
