package traffic

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
)

const (
	// defaultPatience is how long the other gateways are waited for: whoever asks wants a page soon, and a server that is up answers in milliseconds.
	defaultPatience = 400 * time.Millisecond
	// partSize is how many functions a message names at most: with all that can be told of each it stays far below the largest message.
	partSize = 256
	// maxQuestions bounds those that wait for their answer: who asks gives up after a moment.
	maxQuestions = 64
)

// Bus is what asks and answers need of the bus.
type Bus interface {
	Conn() *nats.Conn
	Boot() string
	Identity() bus.Identity
	// Servers are those of the cluster; none where the server stands alone.
	Servers() []bus.ServerView
}

// Config of Traffic. A zero field stands for its default.
type Config struct {
	// Patience is how long the other gateways are waited for. Default 400ms.
	Patience time.Duration
	// PartSize is how many functions a message names at most. Default 256.
	PartSize int
}

// Traffic asks the other gateways, and answers them. It is safe for concurrent use.
type Traffic struct {
	cfg Config
	bus Bus
	own func() []invoke.FunctionStats
	log *slog.Logger
}

// New makes it; own tells what this process's gateway did, with durations.
func New(cfg Config, b Bus, own func() []invoke.FunctionStats, log *slog.Logger) *Traffic {
	cfg.Patience, cfg.PartSize = cmp.Or(cfg.Patience, defaultPatience), cmp.Or(cfg.PartSize, partSize)
	return &Traffic{cfg: cfg, bus: b, own: own, log: log}
}

// Gateway is what one gateway did.
type Gateway struct {
	// Server is its server's name and Boot its run, Peer which of the cluster's servers it is, Name its machine's; Server alone where it stands alone.
	Server, Boot, Peer, Name string
	// Own says that it is this process's own, Told that it told what it did.
	Own, Told bool
	Functions []invoke.FunctionStats
}

// Run answers the other gateways until ctx ends.
func (t *Traffic) Run(ctx context.Context) error {
	sub, err := t.bus.Conn().Subscribe(bus.SubjectTrafficWanted, t.answer)
	if err == nil {
		err = sub.SetPendingLimits(maxQuestions, -1)
	}
	if err != nil {
		return fmt.Errorf("answering what this gateway did: %w", err)
	}
	<-ctx.Done()
	_ = sub.Unsubscribe()
	return nil
}

// answer tells what this gateway did.
func (t *Traffic) answer(m *nats.Msg) {
	wanted, err := bus.Decode[bus.TrafficWanted](m.Data)
	me := t.bus.Identity().ServerName
	if err != nil || m.Reply == "" || wanted.Server == me {
		return
	}
	all := t.own()
	parts := max(1, (len(all)+t.cfg.PartSize-1)/t.cfg.PartSize)
	for i := range parts {
		part := bus.TrafficPart{Schema: bus.Schema, Server: me, Boot: t.bus.Boot(), Part: i, Parts: parts}
		for _, s := range all[i*t.cfg.PartSize : min(len(all), (i+1)*t.cfg.PartSize)] {
			part.Functions = append(part.Functions, bus.FunctionTraffic{
				Namespace: s.Namespace, Function: s.Function, Requests: s.Requests, Errors: s.Errors, ColdStarts: s.ColdStarts,
				InFlight: s.InFlight, Waiting: s.Waiting, RPS: s.RPS, Durations: s.Durations,
			})
		}
		if err := bus.Publish(t.bus, m.Reply, part); err != nil {
			t.log.Debug("another server is not told what this gateway did", obs.Err(err))
			return
		}
	}
}

// Ask returns what every gateway of the cluster did, in the order of the servers; only this process's own where it stands alone.
func (t *Traffic) Ask(ctx context.Context) []Gateway {
	me, servers := t.bus.Identity().ServerName, t.bus.Servers()
	own := Gateway{Server: me, Boot: t.bus.Boot(), Own: true, Told: true}
	if len(servers) == 0 {
		own.Functions = t.own()
		return []Gateway{own}
	}
	told := t.askOthers(ctx, me, servers)
	own.Functions = t.own()
	out := make([]Gateway, 0, len(servers))
	for _, s := range servers {
		g := Gateway{Server: s.Server}
		if a := told[s.Server]; s.Server == me {
			g = own
		} else if a.whole() {
			g = Gateway{Server: s.Server, Boot: a.boot, Told: true, Functions: a.functions}
		}
		g.Peer, g.Name = s.Peer, s.Name
		out = append(out, g)
	}
	return out
}

// answer is what came from a gateway.
type answer struct {
	boot      string
	parts     int
	came      map[int]bool
	functions []invoke.FunctionStats
}

func (a *answer) whole() bool { return a != nil && len(a.came) == a.parts }

// take adds a part; one that comes twice, or from another run than the first, is none.
func (a *answer) take(p *bus.TrafficPart) {
	if p.Boot != a.boot || p.Parts != a.parts || p.Part < 0 || p.Part >= a.parts || a.came[p.Part] {
		return
	}
	a.came[p.Part] = true
	for _, f := range p.Functions {
		a.functions = append(a.functions, invoke.FunctionStats{
			Namespace: f.Namespace, Function: f.Function, Requests: f.Requests, Errors: f.Errors, ColdStarts: f.ColdStarts,
			InFlight: f.InFlight, Waiting: f.Waiting, RPS: f.RPS, Durations: f.Durations,
		})
	}
}

// askOthers waits until all servers that are heard have answered, or for so long; whoever else answers meanwhile is welcome.
func (t *Traffic) askOthers(ctx context.Context, me string, servers []bus.ServerView) map[string]*answer {
	told := map[string]*answer{}
	awaited := map[string]bool{}
	for _, s := range servers {
		if s.Up && s.Server != me {
			awaited[s.Server] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Patience)
	defer cancel()
	inbox := nats.NewInbox()
	sub, err := t.bus.Conn().SubscribeSync(inbox)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = t.question(inbox, me)
	}
	for err == nil && len(awaited) > 0 {
		var m *nats.Msg
		if m, err = sub.NextMsgWithContext(ctx); err != nil {
			break
		}
		p, derr := bus.Decode[bus.TrafficPart](m.Data)
		if derr != nil {
			t.log.Warn("what another gateway told is not understood", obs.Err(derr))
			continue
		}
		a := told[p.Server]
		if a == nil {
			a = &answer{boot: p.Boot, parts: p.Parts, came: map[int]bool{}}
			told[p.Server] = a
		}
		if a.take(&p); a.whole() {
			delete(awaited, p.Server)
		}
	}
	if len(awaited) > 0 {
		t.log.Debug("gateways did not tell what they did", "servers", len(awaited), "err", err)
	}
	return told
}

func (t *Traffic) question(inbox, me string) error {
	data, err := json.Marshal(bus.TrafficWanted{Schema: bus.Schema, Server: me})
	if err != nil {
		return err
	}
	return t.bus.Conn().PublishRequest(bus.SubjectTrafficWanted, inbox, data)
}

// Sum is what the gateways did together, by function.
func Sum(gateways []Gateway) []invoke.FunctionStats {
	if len(gateways) == 1 {
		return gateways[0].Functions
	}
	at := map[functions.Ref]int{}
	var out []invoke.FunctionStats
	for _, g := range gateways {
		for _, f := range g.Functions {
			ref := functions.Ref{Namespace: f.Namespace, Name: f.Function}
			i, known := at[ref]
			if !known {
				i = len(out)
				at[ref] = i
				out = append(out, invoke.FunctionStats{Namespace: f.Namespace, Function: f.Function})
			}
			out[i].Merge(f)
		}
	}
	slices.SortFunc(out, func(a, b invoke.FunctionStats) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function))
	})
	return out
}

// Total counts what a gateway did for all functions; durations and codes are left out.
func (g Gateway) Total() invoke.FunctionStats {
	var out invoke.FunctionStats
	for _, f := range g.Functions {
		out.Add(f)
	}
	return out
}
