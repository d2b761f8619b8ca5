package main

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/gateway"
	"github.com/tatami-faas/tatami/gateway/api"
	"github.com/tatami-faas/tatami/gateway/auth"
	"github.com/tatami-faas/tatami/gateway/intake"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/gateway/remote"
	"github.com/tatami-faas/tatami/gateway/traffic"
	"github.com/tatami-faas/tatami/gateway/trigger"
	"github.com/tatami-faas/tatami/gateway/ui"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
	"github.com/tatami-faas/tatami/runtime/containerd"
	"github.com/tatami-faas/tatami/scheduler"
	"github.com/tatami-faas/tatami/worker"
)

// system is everything that `tatami up` runs, wired together.
type system struct {
	cfg     upConfig
	log     *slog.Logger
	started time.Time

	bus    *bus.Bus
	driver *containerd.Driver
	auth   *auth.Auth
	// worker is nil where this process runs no instances, and so is driver.
	worker    *worker.Worker
	desk      *bus.Desk
	workers   *remote.Workers
	scheduler *scheduler.Scheduler
	invoker   *invoke.Invoker
	queue     *queue.Queue
	intake    *intake.Intake
	triggers  *trigger.Hub
	live      *live.Live
	api       *api.API
	gateway   *gateway.Gateway
	public    http.Handler
	// traffic tells what all gateways do.
	traffic *traffic.Traffic
	// leader tells the name of the server that leads the cluster; nil where this one stands alone.
	leader func() string
}

// newSystem opens the store and the containers' engine, and makes the parts. close must be called.
func newSystem(ctx context.Context, cfg upConfig, log *slog.Logger) (_ *system, err error) {
	s := &system{cfg: cfg, log: log, started: time.Now()}
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	if s.bus, err = bus.Open(ctx, bus.Config{
		DataDir: cfg.DataDir, MaxStore: cfg.MaxStore, RequireDurable: cfg.RequireDurable, ResultTTL: cfg.ResultTTL,
		Listen: cfg.NATSListen, CertificateLife: cfg.CertLife,
	}, log); err != nil {
		return nil, err
	}
	// Here are the only gateway and the only scheduler: what they and the worker beside them say to each other need not take the way over the bus,
	// which a start from zero would take three times.
	if err := s.newWorker(func(t *bus.EndpointTable) bool { return s.invoker.Hear(t) }); err != nil {
		return nil, err
	}
	if err := s.newInvoker(func(d *bus.Demand) bool { return s.scheduler.Hear(d) }); err != nil {
		return nil, err
	}
	pool, err := cfg.pool(log)
	if err != nil {
		return nil, err
	}
	scfg := scheduler.Config{Epoch: s.bus.Identity().Epoch, Compact: cfg.Compact, CompactAfter: cfg.CompactAfter, Pool: pool, Fleet: cfg.fleet()}
	if s.worker != nil {
		scfg.Near = s.worker.Hear
	}
	if s.scheduler, err = scheduler.New(scfg, s.bus, log); err != nil {
		return nil, err
	}
	return s, s.newGateway()
}

// newWorker makes this process's own worker, unless it is to have none, and the reach to those that join. near is the worker's; nil for none.
func (s *system) newWorker(near func(*bus.EndpointTable) bool) (err error) {
	reach := remote.Config{Node: s.bus.Identity().Node, Locate: s.locate}
	if !s.cfg.NoWorker {
		cfg := s.cfg.worker(s.bus.Identity().Node)
		cfg.Near = near
		if s.driver, err = s.cfg.driver(cfg, cgroupName(s.cfg.NodeName), s.bus.Artifacts(), s.log); err != nil {
			return err
		}
		if s.worker, err = worker.New(cfg, s.driver, s.bus, s.log); err != nil {
			return err
		}
		reach.Local = s.worker
	}
	if s.bus.ListenURL() != "" {
		reach.TLS = s.bus.WorkerTLS
	}
	s.desk = bus.NewDesk(s.bus, s.log)
	s.workers = remote.New(reach, s.log)
	return nil
}

// newInvoker makes the data path. near is the invoker's; nil for none.
func (s *system) newInvoker(near func(*bus.Demand) bool) (err error) {
	if s.invoker, err = invoke.New(invoke.Config{MaxBody: s.cfg.MaxBody, Tables: s.workers.Heard, Near: near, Awake: s.cfg.keeper}, s.bus, s.workers, s.log); err != nil {
		return err
	}
	s.workers.Notify(s.invoker.Lose, func(functions.NodeID) { s.invoker.Ask() })
	s.newTraffic()
	return nil
}

// newGateway makes the parts that face callers and operators.
func (s *system) newGateway() (err error) {
	if s.queue, err = queue.New(queue.Config{MaxBody: s.cfg.MaxBody, Drain: s.cfg.DrainTimeout}, s.bus, s.invoker, s.log); err != nil {
		return err
	}
	if s.intake, err = intake.New(intake.Config{MaxBody: s.cfg.MaxBody}, s.bus, s.queue, s.invoker, s.log); err != nil {
		return err
	}
	s.queue.OnEnd(s.intake.Ended)
	s.newTriggers()
	if s.live, err = live.New(live.Config{}, s.sources(), s.log); err != nil {
		return err
	}
	if s.auth == nil {
		if s.auth, err = auth.New(auth.Config{TokenFile: s.tokenFile(), Hosts: s.cfg.ControlHosts}, s.log); err != nil {
			return err
		}
	}
	mcfg := obs.MetricsConfig{Version: version}
	if s.driver != nil {
		mcfg.Pool = func() obs.PoolSample { return poolSample(s.driver.Pool()) }
	}
	if s.worker != nil {
		mcfg.Thaws = func() obs.ThawSample {
			count, took := s.worker.Thaws()
			return obs.ThawSample{Count: count, Took: took}
		}
	}
	metrics, err := obs.NewMetrics(mcfg, s.live, s.log)
	if err != nil {
		return err
	}
	page, err := ui.New()
	if err != nil {
		return err
	}
	if s.api, err = api.New(api.Config{Version: buildVersion()}, api.Deps{
		Bus: s.bus, Auth: s.auth, Routes: s.invoker, Queue: queueView{s.queue}, Logs: logView{s.workers}, Exec: s.workers, Doctor: s.checks, Triggers: s.triggers,
		Images:  build.NewResolver(build.ResolverConfig{DockerConfig: s.cfg.DockerConfig}),
		Traffic: s.apiTraffic, Info: s.info,
		Extra: func(r chi.Router) {
			r.Get("/v1/overview", s.live.ServeOverview)
			r.Get("/v1/stream", s.live.ServeStream)
			r.Method(http.MethodGet, "/metrics", metrics.Handler())
			r.Mount(ui.Prefix, page)
		},
	}, s.log); err != nil {
		return err
	}
	cfg := s.gatewayConfig()
	s.public = gateway.Public(s.invoker, s.queue, cfg, gateway.Events(s.triggers, cfg), gateway.Webhooks(s.triggers, cfg))
	s.gateway, err = gateway.New(cfg, s.public, s.api.Handler(), s.log)
	return err
}

func (s *system) gatewayConfig() gateway.Config {
	return gateway.Config{
		PublicAddr: s.cfg.PublicAddr, ControlAddr: s.cfg.ControlAddr, ControlSocket: filepath.Join(s.cfg.RunDir, "control.sock"),
		Domain: s.cfg.Domain, MaxBody: s.cfg.MaxBody, MaxConnections: s.cfg.MaxConnections, DrainTimeout: s.cfg.DrainTimeout, Awake: s.cfg.keeper,
	}
}

// newTriggers makes the way in for events, and the way back for those that functions answer with.
func (s *system) newTriggers() {
	s.triggers = trigger.New(s.bus, s.queue, s.invoker, s.log)
	s.queue.OnSuccess(func(ctx context.Context, inv *functions.Invocation, rec *functions.Result) error {
		return s.triggers.Reply(ctx, inv, rec, s.queue.OpenBody)
	})
}

// parts lists what runs, in the order of starting: what is fed comes before what feeds it.
func (s *system) parts() []part {
	var out []part
	if s.driver != nil {
		out = append(out, part{name: "containerd", run: s.driver.Run, ready: s.driver.Ready})
	}
	out = append(out, part{name: "scheduler", run: s.scheduler.Run, ready: s.scheduler.Ready})
	if s.worker != nil {
		out = append(out, part{name: "worker", run: s.worker.Run, ready: s.worker.Ready})
	}
	if c := s.bus.Certificates(); c != nil {
		out = append(out, part{name: "certificates", run: c.Run})
	}
	return append(out,
		part{name: "desk", run: s.desk.Run, ready: s.desk.Ready},
		part{name: "workers", run: s.workers.Run},
		part{name: "invoker", run: s.invoker.Run, ready: s.invoker.Ready},
		part{name: "removals", run: s.expel},
		part{name: "queue", run: s.queue.Run, ready: s.queue.Ready},
		part{name: "intake", run: s.intake.Run, ready: s.intake.Ready},
		part{name: "triggers", run: s.triggers.Run, ready: s.triggers.Ready},
		part{name: "live", run: s.live.Run},
		part{name: "api", run: s.api.Run},
		part{name: "gateway", run: s.gateway.Run, ready: s.gateway.Ready},
	)
}

// close gives back what newSystem opened. Sandboxes that run are left to the worker's own end.
func (s *system) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if s.driver != nil {
		if err := s.driver.Close(); err != nil {
			s.log.Error("closing the driver", obs.Err(err))
		}
	}
	if s.bus != nil {
		if err := s.bus.Close(ctx); err != nil {
			s.log.Error("closing the store", obs.Err(err))
		}
	}
}

// controlTokenFile is the name of the file in the data directory with the token of the control API.
const controlTokenFile = "token"

func (s *system) tokenFile() string { return filepath.Join(s.cfg.DataDir, controlTokenFile) }

func (s *system) info() api.Info {
	addrs := s.gateway.Addrs()
	info := api.Info{PublicURL: "http://" + addrs.Public, Domain: s.cfg.Domain, DataDir: s.cfg.DataDir, Started: s.started, Warnings: s.notices()}
	if addrs.Control != "" {
		info.ControlURL = "http://" + addrs.Control
	}
	return info
}

// notices are what an operator should know as long as the process runs.
func (s *system) notices() []string {
	if sentence := s.bus.Durability(); sentence != "" {
		return []string{sentence}
	}
	return nil
}
