package obs

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// MetricsConfig configures Metrics.
type MetricsConfig struct {
	// Version is the value of the label of tatami_build_info.
	Version string
	// Timeout bounds one reading of the source. Default 2s.
	Timeout time.Duration
	// Bare leaves out the figures of the Go runtime and of the process.
	Bare bool
	// Pool, where it is not nil, tells of this process's sandboxes made ahead.
	Pool func() PoolSample
	// Thaws, where it is not nil, tells of this process's frozen instances.
	Thaws func() ThawSample
}

// Metrics is the set of metrics of one process, with its own registry.
type Metrics struct {
	handler http.Handler
}

// NewMetrics makes the metrics that are fed from src.
func NewMetrics(cfg MetricsConfig, src Source, log *slog.Logger) (*Metrics, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tatami_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": cfg.Version},
	})
	build.Set(1)
	all := []prometheus.Collector{build, newCollector(src, cfg.Timeout, log)}
	if cfg.Thaws != nil {
		all = append(all, newThawCollector(cfg.Thaws))
	}
	if cfg.Pool != nil {
		all = append(all, newPoolCollector(cfg.Pool))
	}
	if !cfg.Bare {
		all = append(all, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	handler := promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// A part that cannot be read must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
	return &Metrics{handler}, nil
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler { return m.handler }
