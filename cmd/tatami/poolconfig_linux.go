package main

import (
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler"
	"github.com/tatami-faas/tatami/scheduler/fleet"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

// poolConfig says where workers come from: they join by themselves, or a Nomad job runs them.
type poolConfig struct {
	NomadJob   string
	NomadGroup string
	UpAfter    time.Duration
	DownAfter  time.Duration
}

func (c *poolConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.NomadJob, "nomad-job", "", "Nomad job that runs the workers: as many as are needed, within its scaling block; NOMAD_ADDR, NOMAD_TOKEN and their like say where Nomad is (default workers join by themselves)")
	f.StringVar(&c.NomadGroup, "nomad-group", nomad.DefaultGroup, "the job's group of workers")
	f.DurationVar(&c.UpAfter, "nomad-up-after", 2*time.Second, "how long functions must lack room before workers are added")
	f.DurationVar(&c.DownAfter, "nomad-down-after", 5*time.Minute, "how long nothing must lack room before a worker is emptied and taken away, and between two of them")
}

func (c *poolConfig) validate() error {
	for name, d := range map[string]time.Duration{"nomad-up-after": c.UpAfter, "nomad-down-after": c.DownAfter} {
		if d < 100*time.Millisecond {
			return fault.New(fault.CodeInvalidRequest, "--%s: %s is less than 100ms", name, d).WithField(name)
		}
	}
	return nil
}

// pool makes the pool of workers.
func (c *poolConfig) pool(log *slog.Logger) (scheduler.Pool, error) {
	if c.NomadJob == "" {
		return scheduler.Static{}, nil
	}
	client, err := nomad.FromEnvironment()
	if err != nil {
		return nil, err
	}
	return nomad.New(nomad.Config{Job: c.NomadJob, Group: c.NomadGroup, Client: client}, log)
}

func (c *poolConfig) fleet() fleet.Policy {
	return fleet.Policy{UpAfter: c.UpAfter, DownAfter: c.DownAfter}
}
