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
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// phase is a stretch of an open-loop load at one rate.
type phase struct {
	Name string        `json:"name"`
	Rate float64       `json:"rate"`
	For  time.Duration `json:"for"`
}

// phaseResult is what became of the requests that were due in a phase. Latencies count from the time each was due.
type phaseResult struct {
	Offered  int `json:"offered"`
	Answered int `json:"answered"`
	Refused  int `json:"refused"`
	// Told counts refusals that say when to come back.
	Told int     `json:"told"`
	P50  float64 `json:"p50ms"`
	P99  float64 `json:"p99ms"`
	// RefusalP99 is 0 where nothing was refused.
	RefusalP99 float64 `json:"refusalP99ms"`
	// LastBad is how far into the phase the last request was due that was refused or took longer than the limit.
	LastBad float64 `json:"lastBadS"`
	// LagP99 is by how much the generator itself was late.
	LagP99 float64 `json:"lagP99ms"`
}

// maxOpen bounds the generator's connections: requests that would need more are not sent and fail the run.
const maxOpen = 4000

// openLoad runs the phases without a gap in a process of its own. A request that takes longer than slow counts as bad.
func openLoad(ctx context.Context, addr, path string, slow time.Duration, phases []phase) ([]phaseResult, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	plan, err := json.Marshal(phases)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "openload", "-addr", addr, "-path", path, "-slow", slow.String(), "-phases", string(plan))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("open load on %s%s: %w", addr, path, err)
	}
	var r []phaseResult
	return r, json.Unmarshal(out, &r)
}

func openLoadMain(args []string) int {
	f := flag.NewFlagSet("openload", flag.ExitOnError)
	addr := f.String("addr", "", "host:port")
	path := f.String("path", "/", "path")
	slow := f.Duration("slow", time.Second, "a request that takes longer counts as bad")
	plan := f.String("phases", "", "JSON list of phases")
	_ = f.Parse(args)
	var phases []phase
	err := json.Unmarshal([]byte(*plan), &phases)
	var results []phaseResult
	if err == nil {
		g := &generator{addr: *addr, request: []byte("GET " + *path + " HTTP/1.1\r\nHost: bench\r\n\r\n"), slow: *slow}
		results, err = g.run(phases)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// generator sends each request when it is due, on a connection that waits for nothing: a slow answer delays no other request.
type generator struct {
	addr    string
	request []byte
	slow    time.Duration

	idle []chan shot
	busy sync.WaitGroup
	open int

	mu sync.Mutex
	// over says that nothing more is sent.
	over   bool
	phases []*phaseTally
	errs   []error
}

// shot is a request; its phase's phaseTally takes the outcome.
type shot struct {
	due time.Time
	t   *phaseTally
}

type phaseTally struct {
	begun             time.Time
	ok, refused, lag  *hdrhistogram.Histogram
	offered, told     int
	lastBad           time.Duration
	answers, refusals int
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

func (g *generator) run(phases []phase) ([]phaseResult, error) {
	due := time.Now()
	for _, p := range phases {
		t := &phaseTally{begun: due, ok: newHistogram(), refused: newHistogram(), lag: newHistogram()}
		g.phases = append(g.phases, t)
		interval := time.Duration(float64(time.Second) / p.Rate)
		for end := due.Add(p.For); due.Before(end); due = due.Add(interval) {
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
			if err := g.send(shot{due, t}); err != nil {
				return nil, err
			}
			t.offered++
			_ = t.lag.RecordValue(max(1, time.Since(due).Microseconds()))
		}
	}
	g.mu.Lock()
	for _, c := range g.idle {
		close(c)
	}
	g.idle, g.over = nil, true
	g.mu.Unlock()
	g.busy.Wait()
	var out []phaseResult
	ms := func(h *hdrhistogram.Histogram, q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	for _, t := range g.phases {
		out = append(out, phaseResult{
			Offered: t.offered, Answered: t.answers, Refused: t.refusals, Told: t.told, P50: ms(t.ok, 50), P99: ms(t.ok, 99),
			RefusalP99: ms(t.refused, 99), LastBad: t.lastBad.Seconds(), LagP99: ms(t.lag, 99),
		})
	}
	return out, errors.Join(g.errs...)
}

// send hands the request to the connection that became idle last, or to a new one.
func (g *generator) send(s shot) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.errs) > 0 {
		return errors.Join(g.errs...)
	}
	if n := len(g.idle); n > 0 {
		c := g.idle[n-1]
		g.idle = g.idle[:n-1]
		c <- s
		return nil
	}
	if g.open++; g.open > maxOpen {
		return fmt.Errorf("%d requests are under way at once: they are not answered", maxOpen)
	}
	work := make(chan shot, 1)
	work <- s
	g.busy.Go(func() {
		if err := g.serve(work); err != nil {
			g.mu.Lock()
			g.errs = append(g.errs, err)
			g.mu.Unlock()
		}
	})
	return nil
}

// serve sends what it is given on one connection, until there is no more.
func (g *generator) serve(work chan shot) error {
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for s := range work {
		if _, err := c.Write(g.request); err != nil {
			return err
		}
		a, err := readAnswer(r)
		if err != nil {
			return err
		}
		if a.status != "200" && a.status != "503" {
			return fmt.Errorf("answer %s", a.status)
		}
		if !g.done(s, a, work) {
			return nil
		}
	}
	return nil
}

// done counts an answer and offers the connection for the next request; false when there will be none.
func (g *generator) done(s shot, a answer, work chan shot) bool {
	took := time.Since(s.due)
	g.mu.Lock()
	defer g.mu.Unlock()
	t := s.t
	h := t.ok
	if a.status == "200" {
		t.answers++
	} else {
		h = t.refused
		t.refusals++
		if a.retryAfter {
			t.told++
		}
	}
	_ = h.RecordValue(max(1, took.Microseconds()))
	if a.status != "200" || took > g.slow {
		t.lastBad = max(t.lastBad, s.due.Sub(t.begun))
	}
	if g.over {
		return false
	}
	g.idle = append(g.idle, work)
	return true
}

// answer is what matters of a response.
type answer struct {
	status     string
	retryAfter bool
}

// readAnswer reads one response with a Content-Length.
func readAnswer(r *bufio.Reader) (a answer, err error) {
	status, length, err := readHead(r, func(line string) {
		if len(line) > 12 && strings.EqualFold(line[:12], "Retry-After:") {
			a.retryAfter = true
		}
	})
	if err != nil {
		return a, err
	}
	a.status = status
	_, err = r.Discard(length)
	return a, err
}
