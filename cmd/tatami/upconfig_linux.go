package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
)

// upPlaces are where `tatami up` keeps its things. The config file is read when --config is not given and the file exists.
var upPlaces = places{config: "/etc/tatami/config.yaml", data: "/var/lib/tatami", run: "/run/tatami"}

// upConfig is the configuration of `tatami up`. Every field is a flag, an environment variable TATAMI_* and a key of the config file.
type upConfig struct {
	nodeConfig
	poolConfig
	NoWorker       bool
	NATSListen     string
	CertLife       time.Duration
	PublicAddr     string
	ControlAddr    string
	ControlHosts   []string
	Domain         string
	MaxBody        int64
	MaxConnections int
	MaxStore       int64
	ResultTTL      time.Duration
	RequireDurable bool
	Compact        string
	CompactAfter   time.Duration
}

func (c *upConfig) flags(f *pflag.FlagSet) { c.flagsAt(f, upPlaces) }

func (c *upConfig) flagsAt(f *pflag.FlagSet, p places) {
	c.nodeConfig.flags(f, p)
	f.BoolVar(&c.NoWorker, "no-worker", false, "run no instances in this process: only joined workers do")
	f.StringVar(&c.NATSListen, "nats-listen", "", "address of this machine at which NATS clients connect, callers of functions and workers that join, such as 127.0.0.1:4222 (default none)")
	f.DurationVar(&c.CertLife, "certificate-life", 24*time.Hour, "how long the certificates between server and workers are good; they are replaced by themselves")
	f.StringVar(&c.PublicAddr, "public-addr", "127.0.0.1:8080", "where functions are served")
	f.StringVar(&c.ControlAddr, "control-addr", "127.0.0.1:8081", "where the control API and the dashboard are served; empty: only on the socket in the run directory")
	f.StringSliceVar(&c.ControlHosts, "control-hosts", nil, "host names by which the control API may be called besides localhost and addresses")
	f.StringVar(&c.Domain, "domain", "", "serve functions at {name}.{namespace}.{domain} too")
	c.MaxBody = 100 * functions.MiB
	f.Var((*bytesValue)(&c.MaxBody), "max-body", "largest request body")
	f.IntVar(&c.MaxConnections, "max-connections", 0, "largest number of connections to the public address (default a third of the files that the process may open)")
	f.Var((*bytesValue)(&c.MaxStore), "max-store", "largest size of the store: queue, results and artifacts together (default what the disk has, less a reserve)")
	f.DurationVar(&c.ResultTTL, "result-ttl", 24*time.Hour, "how long results of queued invocations are kept")
	f.StringVar(&c.Compact, "compact", scheduler.CompactOff, "off, or idle: empty nodes whose instances do nothing and fit on others, one at a time")
	f.DurationVar(&c.CompactAfter, "compact-after", time.Minute, "how long no function must have lacked room before a node is emptied")
	f.BoolVar(&c.RequireDurable, "require-durable", false, "refuse to start where power loss may lose accepted work")
	c.poolConfig.flags(f)
}

func (c *upConfig) validate() error {
	if err := c.nodeConfig.validate(); err != nil {
		return err
	}
	if err := c.poolConfig.validate(); err != nil {
		return err
	}
	if c.NomadJob != "" && c.NATSListen == "" {
		return fault.New(fault.CodeInvalidRequest, "--nomad-job: no worker could join").WithField("nomad-job").
			WithHint("let workers join at an address that they reach: --nats-listen 10.0.0.1:4222")
	}
	if c.ResultTTL < time.Second {
		return fault.New(fault.CodeInvalidRequest, "--result-ttl: %s is less than 1s", c.ResultTTL).WithField("result-ttl")
	}
	if c.Compact != scheduler.CompactOff && c.Compact != scheduler.CompactIdle {
		return fault.New(fault.CodeInvalidRequest, "--compact: %.40q is neither %s nor %s", c.Compact, scheduler.CompactOff, scheduler.CompactIdle).WithField("compact")
	}
	if c.CompactAfter < time.Second {
		return fault.New(fault.CodeInvalidRequest, "--compact-after: %s is less than 1s", c.CompactAfter).WithField("compact-after")
	}
	if c.NoWorker && c.NATSListen == "" {
		return fault.New(fault.CodeInvalidRequest, "--no-worker: nothing could run: no worker may join either").WithField("no-worker").
			WithHint("let workers join: --nats-listen 127.0.0.1:4222")
	}
	return nil
}

// bytesValue is a flag of bytes with a binary unit.
type bytesValue int64

func (b *bytesValue) Type() string { return "size" }

func (b *bytesValue) String() string {
	switch v := int64(*b); {
	case v == 0:
		return ""
	case v%functions.GiB == 0:
		return strconv.FormatInt(v/functions.GiB, 10) + "Gi"
	case v%functions.MiB == 0:
		return strconv.FormatInt(v/functions.MiB, 10) + "Mi"
	default:
		return strconv.FormatInt(v, 10)
	}
}

func (b *bytesValue) Set(s string) error {
	unit := int64(1)
	digits := s
	for suffix, u := range map[string]int64{"Ki": functions.KiB, "Mi": functions.MiB, "Gi": functions.GiB} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = d, u
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return fmt.Errorf("want bytes with Ki, Mi or Gi, such as 512Mi")
	}
	*b = bytesValue(v * unit)
	return nil
}

// milliValue is a flag of processor time: cores, or thousandths of one with an m.
type milliValue int64

func (m *milliValue) Type() string { return "cpu" }

func (m *milliValue) String() string {
	if *m == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*m), 10) + "m"
}

func (m *milliValue) Set(s string) error {
	if d, ok := strings.CutSuffix(s, "m"); ok {
		v, err := strconv.ParseInt(d, 10, 32)
		if err != nil || v < 0 {
			return fmt.Errorf("want cores or millicores, such as 0.5 or 500m")
		}
		*m = milliValue(v)
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 100_000 {
		return fmt.Errorf("want cores or millicores, such as 0.5 or 500m")
	}
	*m = milliValue(v*1000 + 0.5)
	return nil
}
