package live

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// cluster is what three gateways did; the first one is this process's own.
type cluster struct {
	t    *testing.T
	live *Live
	now  time.Time
	each []Gateway
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, now: noon}
	for _, name := range []string{"a", "b", "c"} {
		c.each = append(c.each, Gateway{Peer: name + ":6222", Boot: "1", Name: name, Own: name == "a", Told: true, Functions: []Traffic{{Namespace: "default", Function: "hello"}}})
	}
	var err error
	c.live, err = New(Config{Now: func() time.Time { return c.now }}, Sources{
		Overview: func(context.Context) (bus.Overview, error) { return bus.Overview{}, nil },
		Traffic: func(context.Context) Gateways {
			all := Traffic{Namespace: "default", Function: "hello"}
			for _, g := range c.each {
				if g.Told {
					all.InFlight += g.Functions[0].InFlight
				}
			}
			return Gateways{All: []Traffic{all}, Each: slices.Clone(c.each)}
		},
		Servers: func() []Server {
			return []Server{{Name: "a", Peer: "a:6222", Up: true, Leads: true}, {Name: "b", Peer: "b:6222", Up: true}, {Name: "c", Peer: "c:6222", Up: true}}
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// did has a gateway count requests up to a number.
func (c *cluster) did(i int, requests, errors uint64) {
	f := c.each[i].Functions[0]
	f.Requests, f.Errors, f.InFlight = requests, errors, i+1
	c.each[i].Functions = []Traffic{f}
}

// after makes the picture of a second later.
func (c *cluster) after() *picture {
	c.now = c.now.Add(time.Second)
	return c.live.collect(c.t.Context())
}

// The figures are the sum of all gateways, each followed by itself: neither one that starts anew nor one that is silent for a while makes them jump.
func TestFiguresAreOfAllGateways(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	// What they did before anybody looked is not news.
	c.did(0, 1000, 0)
	c.did(1, 2000, 10)
	c.did(2, 3000, 0)
	if p := c.after(); p.Totals.Requests != 0 || p.Totals.InFlight != 1+2+3 || p.Totals.Without != nil {
		t.Fatalf("%+v", p.Totals)
	}
	c.did(0, 1001, 0)
	c.did(1, 2020, 10)
	c.did(2, 3300, 3)
	p := c.after()
	if got := p.Totals; got.Requests != 321 || got.Errors != 3 || got.RPS != 321 || p.Functions[0].RPS != 321 {
		t.Errorf("%+v", got)
	}
	for i, want := range []GatewayFigures{{RPS: 1, InFlight: 1}, {RPS: 20, InFlight: 2}, {RPS: 300, InFlight: 3}} {
		if s := p.Servers[i]; s.Gateway == nil || *s.Gateway != want {
			t.Errorf("server %s shows %+v, want %+v", s.Name, s.Gateway, want)
		}
	}
	// One is silent: it is named, and what it did meanwhile comes with its next answer.
	c.each[2].Told = false
	p = c.after()
	if p.Totals.Requests != 321 || !slices.Equal(p.Totals.Without, []string{"c"}) || p.Servers[2].Gateway != nil {
		t.Errorf("%+v %+v", p.Totals, p.Servers)
	}
	if !slices.ContainsFunc(p.Problems, func(v Verdict) bool {
		return v.Text == "Server c does not tell what its gateway does: the figures are without it." && v.Level == LevelWarn
	}) {
		t.Errorf("the problems are %+v", p.Problems)
	}
	c.each[2].Told = true
	c.did(2, 3310, 3)
	if p = c.after(); p.Totals.Requests != 331 || p.Totals.Without != nil {
		t.Errorf("%+v", p.Totals)
	}
	// One starts anew: what it counts from zero is news, and no more.
	c.each[1].Boot = "2"
	c.did(1, 5000, 0)
	if p = c.after(); p.Totals.Requests != 5331 {
		t.Errorf("%d requests, want 331 and 5000", p.Totals.Requests)
	}
	// A function that it had forgotten begins at zero.
	c.each[1].Functions = []Traffic{{Namespace: "default", Function: "other", Requests: 4}}
	if p = c.after(); p.Totals.Requests != 5335 {
		t.Errorf("%d requests, want 4 more than 5331", p.Totals.Requests)
	}
}

// Who gathers the metrics of all servers adds them up: each is to count its own gateway's alone.
func TestMetricsAreOfTheOwnGateway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.did(0, 7, 1)
	c.each[0].Functions[0].P50, c.each[0].Functions[0].P99 = functions.Duration(time.Millisecond), functions.Duration(time.Second)
	c.each[0].Functions[0].Codes = map[string]uint64{"200": 6, "500": 1}
	c.did(1, 2000, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.live.Run(ctx) }()
	s, err := c.live.Sample(ctx)
	cancel()
	if rerr := <-done; err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	if len(s.Functions) != 1 {
		t.Fatalf("%+v", s.Functions)
	}
	f := s.Functions[0]
	if f.Errors != 1 || f.InFlight != 1 || f.Codes["200"] != 6 || f.Codes["500"] != 1 || f.P50 != time.Millisecond || f.P99 != time.Second {
		t.Errorf("%+v", f)
	}
}
