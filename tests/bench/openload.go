package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"
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
	// What is of refusals is 0 where nothing was refused.
	RefusalP50  float64 `json:"refusalP50ms"`
	RefusalP99  float64 `json:"refusalP99ms"`
	RefusalMost float64 `json:"refusalMostMs"`
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
		results, err = openGenerate(*addr, *path, *slow, phases)
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

func openGenerate(addr, path string, slow time.Duration, phases []phase) ([]phaseResult, error) {
	g, err := newGenerator(addr, []byte("GET "+path+" HTTP/1.1\r\nHost: bench\r\n\r\n"), slow)
	if err != nil {
		return nil, err
	}
	defer g.close()
	tallies, err := g.run(phases)
	if err != nil {
		return nil, err
	}
	var out []phaseResult
	ms := func(us int64) float64 { return float64(us) / 1000 }
	for _, t := range tallies {
		out = append(out, phaseResult{
			Offered: t.offered, Answered: t.answers, Refused: t.refusals, Told: t.told, P50: ms(t.ok.ValueAtQuantile(50)), P99: ms(t.ok.ValueAtQuantile(99)),
			RefusalP50: ms(t.refused.ValueAtQuantile(50)), RefusalP99: ms(t.refused.ValueAtQuantile(99)), RefusalMost: ms(t.refused.Max()),
			LastBad: t.lastBad.Seconds(), LagP99: ms(t.lag.ValueAtQuantile(99)),
		})
	}
	return out, nil
}
