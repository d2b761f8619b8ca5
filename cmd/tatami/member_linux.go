package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/gateway"
	"github.com/tatami-faas/tatami/gateway/api"
	"github.com/tatami-faas/tatami/gateway/auth"
	"github.com/tatami-faas/tatami/gateway/relay"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
	"github.com/tatami-faas/tatami/scheduler"
)

const (
	// termPause is the wait after a term that failed.
	termPause = time.Second
	// termPatience is how long a part of a term may take to be ready: a server that cannot lead lets another one try.
	termPatience = 20 * time.Second
	// handOver bounds the wait, at the end of a term, for the requests and the attempts under way: nobody leads meanwhile. An attempt that takes longer is
	// cut, and is delivered again to the server that leads next.
	handOver = 500 * time.Millisecond
	// saveWithin bounds the storing, at the end of a term, of what was learnt since it was stored last.
	saveWithin = 100 * time.Millisecond
)

// member is a server of a cluster. What every server does is the system's; what only the one that leads does is made anew for each term.
type member struct {
	*system
	scfg  serverConfig
	relay *relay.Relay
	// leads is the name of the server that leads; empty while there is none.
	leads atomic.Pointer[string]
}

// newMember opens the store and makes the parts that run whoever leads. close must be called.
func newMember(ctx context.Context, cfg serverConfig, log *slog.Logger) (_ *member, err error) {
	m := &member{system: &system{cfg: cfg.upConfig, log: log, started: time.Now()}, scfg: cfg}
	defer func() {
		if err != nil {
			m.close(ctx)
		}
	}()
	m.leader = func() string {
		if name := m.leads.Load(); name != nil {
			return *name
		}
		return ""
	}
	cluster, err := cfg.member()
	if err != nil {
		return nil, err
	}
	if m.bus, err = bus.Open(ctx, bus.Config{
		DataDir: cfg.DataDir, MaxStore: cfg.MaxStore, RequireDurable: cfg.RequireDurable, ResultTTL: cfg.ResultTTL,
		Listen: cfg.NATSListen, CertificateLife: cfg.CertLife, Cluster: cluster,
	}, log); err != nil {
		return nil, err
	}
	if err := m.newWorker(nil); err != nil {
		return nil, err
	}
	if err := m.newInvoker(nil); err != nil {
		return nil, err
	}
	if err := m.shareToken(ctx); err != nil {
		return nil, err
	}
	if m.auth, err = auth.New(auth.Config{TokenFile: m.tokenFile(), Hosts: cfg.ControlHosts, Share: m.bus.ShareControlToken}, log); err != nil {
		return nil, err
	}
	gcfg := m.gatewayConfig()
	gcfg.LameDuck = cfg.LameDuck
	m.relay = relay.New(relay.Config{
		Listen: cfg.RelayListen, ListenTLS: m.bus.ServersOnly(), DialTLS: m.bus.ServerTLS(),
		Local: gateway.Public(m.invoker, gateway.NoQueue{}, gcfg), Guard: m.auth.Middleware,
		Queued: gateway.Queued(cfg.Domain), Names: gateway.Names(cfg.Domain), Named: gateway.Named,
	}, log)
	control, err := m.control()
	if err != nil {
		return nil, err
	}
	m.gateway, err = gateway.New(gcfg, m.relay.Public(), control, log)
	return m, err
}

// control serves the control listener: the server that leads answers, but for the metrics and what it hears of the others, of which each has its own.
func (m *member) control() (http.Handler, error) {
	metrics, err := obs.NewMetrics(obs.MetricsConfig{Version: version}, follower{m}, m.log)
	if err != nil {
		return nil, err
	}
	own := map[string]http.Handler{"/metrics": m.auth.Middleware(metrics.Handler()), api.ServersPath: m.auth.Middleware(http.HandlerFunc(m.serveServers))}
	relayed := m.relay.Control()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := own[r.URL.Path]; h != nil && r.Method == http.MethodGet && !m.relay.Leads() {
			h.ServeHTTP(w, r)
			return
		}
		relayed.ServeHTTP(w, r)
	}), nil
}

// serveServers tells which servers of the cluster this one hears: that is wanted most when none leads.
func (m *member) serveServers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(api.Servers(m.bus.Servers(), m.leader(), m.apiTraffic(r.Context()))); err != nil {
		m.log.Debug("the list of servers is not written", obs.Err(err))
	}
}

// follower feeds the metrics of a server that does not lead: what its own gateway does. Nodes, instances and queues are told of by the one that leads, and by
// it alone, or sums over all servers would count them several times.
type follower struct{ m *member }

// Sample gives the figures of now.
func (f follower) Sample(context.Context) (obs.Sample, error) {
	out := obs.Sample{SchedulerUp: f.m.leads.Load() != nil}
	for _, s := range f.m.servers() {
		out.Servers = append(out.Servers, obs.ServerSample{Peer: s.Peer, Name: s.Name, Up: s.Up, Leads: s.Leads})
	}
	for _, s := range f.m.invoker.Stats() {
		fn := obs.FunctionSample{
			Namespace: s.Namespace, Function: s.Function, Codes: s.Codes, Errors: s.Errors, ColdStarts: s.ColdStarts, InFlight: s.InFlight, Waiting: s.Waiting, P50: -1, P99: -1,
		}
		if s.P99 > 0 {
			fn.P50, fn.P99 = s.P50.Std(), s.P99.Std()
		}
		out.Functions = append(out.Functions, fn)
	}
	return out, nil
}

// shareToken gives the control API the token that all servers have.
func (m *member) shareToken(ctx context.Context) error {
	if _, err := os.Stat(m.tokenFile()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	token, err := m.bus.ControlToken(ctx)
	if err != nil {
		return err
	}
	return writeSecret(m.tokenFile(), token)
}

// parts lists what runs, in the order of starting.
func (m *member) parts() []part {
	return []part{
		{name: "desk", run: m.desk.Run, ready: m.desk.Ready},
		{name: "certificates", run: m.bus.Certificates().Run},
		{name: "workers", run: m.workers.Run},
		{name: "invoker", run: m.invoker.Run, ready: m.invoker.Ready},
		{name: "removals", run: m.expel},
		{name: "relay", run: m.relay.Run},
		{name: "leaders", run: m.follow},
		{name: "token", run: func(ctx context.Context) error { return m.bus.FollowControlToken(ctx, m.auth.Token(), m.auth.Adopt) }},
		{name: "traffic", run: m.traffic.Run},
		{name: "sight", run: m.bus.Look},
		{name: "gateway", run: m.gateway.Run, ready: m.gateway.Ready},
		{name: "lead", run: m.lead},
	}
}

// follow keeps the relay told of who leads.
func (m *member) follow(ctx context.Context) error {
	return m.bus.Leaders(ctx, func(l *bus.Leader) {
		if l == nil {
			m.leads.Store(nil)
			m.relay.Point("")
			return
		}
		if l.Moved != "" {
			m.leads.Store(nil)
			m.relay.Point("")
			m.log.Error("what the cluster holds is elsewhere now, and nobody leads any more: stop this server", "where", l.Moved)
			return
		}
		m.leads.Store(&l.Server)
		m.log.Info("a server leads", "server", l.Server)
		m.relay.Point(l.Address)
	})
}

// lead does what only the server that leads does, whenever this one is it.
func (m *member) lead(ctx context.Context) error {
	return m.bus.Lead(ctx, m.scfg.RelayListen, m.term)
}

// term runs the parts of the server that leads until ctx ends.
func (m *member) term(ctx context.Context, epoch uint64) error {
	cfg := m.cfg
	cfg.DrainTimeout = min(cfg.DrainTimeout, handOver)
	name := m.bus.Identity().ServerName
	t := &system{leader: func() string { return name }, cfg: cfg, log: m.log, started: m.started, bus: m.bus, desk: m.desk, workers: m.workers, invoker: m.invoker, traffic: m.traffic, auth: m.auth}
	pool, err := m.cfg.pool(m.log)
	if err != nil {
		return err
	}
	scfg := scheduler.Config{Epoch: epoch, Compact: m.cfg.Compact, CompactAfter: m.cfg.CompactAfter, Pool: pool, Fleet: m.cfg.fleet(), SaveWithin: saveWithin}
	if t.scheduler, err = scheduler.New(scfg, m.bus, m.log); err != nil {
		return err
	}
	if err := t.newGateway(); err != nil {
		return err
	}
	// Its own listens nowhere: the server's does, and has it answer.
	t.gateway = m.gateway
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	retired := make(chan struct{})
	go func() {
		defer close(retired)
		select {
		case <-ctx.Done():
		case <-working.Done():
		}
		t.queue.Rest()
		m.relay.Retire(handOver)
		stop()
	}()
	b := m.bus
	err = supervise(working, m.log, []part{
		{"scheduler", m.once(t.scheduler.Run, b.Functions().Stream(), b.Revisions().Stream(), b.Quotas().Stream(), b.Nodes().Stream(), b.IdleTimes().Stream()), t.scheduler.Ready, termPatience},
		{"queue", m.once(t.queue.Run, bus.StreamInvocations, bus.StreamDead, bus.StreamKeys, b.Results().Stream()), t.queue.Ready, termPatience},
		{"intake", t.intake.Run, t.intake.Ready, termPatience},
		{"triggers", m.once(t.triggers.Run, b.Triggers().Stream(), b.TriggerStates().Stream()), t.triggers.Ready, termPatience},
		{name: "live", run: t.live.Run},
		{name: "api", run: t.api.Run},
		{name: "leftovers", run: b.ClearLeftovers},
	}, func() {
		m.relay.Lead(relay.Active{Public: t.public, Control: t.api.Handler()})
	})
	stop()
	<-retired
	if err != nil && ctx.Err() == nil {
		// The server goes on calling functions; it leads again, or another one does, when the store answers.
		m.log.Error("this server could not lead; trying again", "err", err)
		select {
		case <-time.After(termPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// once runs a part once others than the dead lead the streams that it reads.
func (m *member) once(run func(context.Context) error, streams ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.bus.Await(ctx, streams...); err != nil {
			return nil //nolint:nilerr // ctx has ended
		}
		return run(ctx)
	}
}
