package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// defaultConfigFile is read when --config is not given and the file exists.
const defaultConfigFile = "/etc/tatami/config.yaml"

// upConfig is the configuration of `tatami up`. Every field is a flag, an environment variable TATAMI_* and a key of the config file.
type upConfig struct {
	Config            string
	DataDir, RunDir   string
	ContainerdAddress string
	PublicAddr        string
	ControlAddr       string
	ControlHosts      []string
	Domain            string
	NodeName          string
	ReserveCPU        int64
	ReserveMemory     int64
	MaxInstances      int64
	MaxBody           int64
	MaxStore          int64
	ResultTTL         time.Duration
	DrainTimeout      time.Duration
	KeepInstances     bool
	RequireDurable    bool
	LogLevel          string
	LogFormat         string
	DockerConfig      string
}

func (c *upConfig) flags(f *pflag.FlagSet) {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	f.StringVar(&c.Config, "config", "", "config file; keys are these flags' names (default "+defaultConfigFile+" if it exists)")
	f.StringVar(&c.DataDir, "data-dir", "/var/lib/tatami", "directory of everything that must survive")
	f.StringVar(&c.RunDir, "run-dir", "/run/tatami", "directory of sockets and running sandboxes; short, on tmpfs if possible")
	f.StringVar(&c.ContainerdAddress, "containerd-address", "", "socket of a containerd to use instead of the embedded one")
	f.StringVar(&c.PublicAddr, "public-addr", "127.0.0.1:8080", "where functions are served")
	f.StringVar(&c.ControlAddr, "control-addr", "127.0.0.1:8081", "where the control API and the dashboard are served; empty: only on the socket in the run directory")
	f.StringSliceVar(&c.ControlHosts, "control-hosts", nil, "host names by which the control API may be called besides localhost and addresses")
	f.StringVar(&c.Domain, "domain", "", "serve functions at {name}.{namespace}.{domain} too")
	f.StringVar(&c.NodeName, "node-name", host, "this machine's name, for people")
	f.Var((*milliValue)(&c.ReserveCPU), "reserve-cpu", "processor time kept from functions, such as 200m (default a tenth of the machine)")
	f.Var((*bytesValue)(&c.ReserveMemory), "reserve-memory", "memory kept from functions, such as 1Gi (default a tenth of the machine, at least 512Mi)")
	f.Int64Var(&c.MaxInstances, "max-instances", 500, "instances on this machine")
	c.MaxBody = 100 * functions.MiB
	f.Var((*bytesValue)(&c.MaxBody), "max-body", "largest request body")
	f.Var((*bytesValue)(&c.MaxStore), "max-store", "largest size of the store: queue, results and artifacts together (default what the disk has, less a reserve)")
	f.DurationVar(&c.ResultTTL, "result-ttl", 24*time.Hour, "how long results of queued invocations are kept")
	f.DurationVar(&c.DrainTimeout, "drain-timeout", 30*time.Second, "how long running invocations may take to end when the server stops")
	f.BoolVar(&c.KeepInstances, "keep-instances", false, "leave instances running when the server stops, for the next one to adopt")
	f.BoolVar(&c.RequireDurable, "require-durable", false, "refuse to start where power loss may lose accepted work")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "", "text or json (default text on a terminal, else json)")
	f.StringVar(&c.DockerConfig, "docker-config", "", "directory of the docker config.json with registry credentials (default DOCKER_CONFIG or ~/.docker)")
}

func (c *upConfig) validate() error {
	for name, dir := range map[string]*string{"data-dir": &c.DataDir, "run-dir": &c.RunDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil || *dir == "" {
			return fault.New(fault.CodeInvalidRequest, "--%s: %q is no directory's name", name, *dir).WithField(name)
		}
		*dir = abs
	}
	if c.ReserveCPU < 0 || c.ReserveCPU >= int64(runtime.NumCPU())*1000 {
		return fault.New(fault.CodeInvalidRequest, "--reserve-cpu: %dm leaves nothing of %d cores", c.ReserveCPU, runtime.NumCPU()).WithField("reserve-cpu")
	}
	if c.MaxInstances < 1 || c.MaxInstances > 100_000 {
		return fault.New(fault.CodeInvalidRequest, "--max-instances: %d is not between 1 and 100000", c.MaxInstances).WithField("max-instances")
	}
	if c.ResultTTL < time.Second || c.DrainTimeout < 0 {
		return fault.New(fault.CodeInvalidRequest, "--result-ttl must be at least 1s and --drain-timeout not negative").WithField("result-ttl")
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
