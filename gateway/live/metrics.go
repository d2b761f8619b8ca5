package live

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/obs"
)

// Sample gives the picture's figures to the metrics.
func (l *Live) Sample(ctx context.Context) (obs.Sample, error) {
	p, err := l.fresh(ctx)
	if err != nil {
		return obs.Sample{}, err
	}
	s := obs.Sample{SchedulerUp: p.Stale == nil, StreamClients: l.feed.open()}
	for _, v := range p.Servers {
		s.Servers = append(s.Servers, obs.ServerSample{Peer: v.Peer, Name: v.Name, Up: v.Up, Leads: v.Leads})
	}
	for _, n := range p.Nodes {
		if n.State == NodeLeft {
			continue // it is not down
		}
		s.Nodes = append(s.Nodes, obs.NodeSample{
			ID: string(n.ID), Name: n.Name, Up: n.State != NodeLost && p.Stale == nil,
			CPU:    obs.Capacities{Capacity: n.CPU.Capacity, Allocatable: n.CPU.Allocatable, Reserved: n.CPU.Reserved, Used: n.CPU.Used},
			Memory: obs.Capacities{Capacity: n.Memory.Capacity, Allocatable: n.Memory.Allocatable, Reserved: n.Memory.Reserved, Used: n.Memory.Used},
		})
	}
	now := l.cfg.Now()
	for _, f := range p.Functions {
		// Each server's metrics are of its own gateway: who gathers them adds them up.
		own := p.more[f.ref()].own
		fs := obs.FunctionSample{
			Namespace: f.Namespace, Function: f.Function, Codes: own.Codes, Errors: own.Errors, ColdStarts: own.ColdStarts,
			InFlight: own.InFlight, Waiting: own.Waiting, P50: -1, P99: -1,
			Instances: map[string]int{
				string(functions.InstanceStarting): f.Starting, string(functions.InstanceReady): f.Ready - f.Frozen,
				string(functions.InstanceFrozen): f.Frozen, string(functions.InstanceDraining): f.Draining,
			},
			Desired: f.Desired, StartFailures: f.StartFailures,
			Pending: f.Queue.Pending, Scheduled: f.Queue.Scheduled, Running: f.Queue.Running, Dead: f.Queue.Dead,
		}
		if own.P99 > 0 {
			fs.P50, fs.P99 = own.P50.Std(), own.P99.Std()
		}
		if f.Queue.Oldest != nil {
			fs.OldestAge = max(0, now.Sub(*f.Queue.Oldest))
		}
		s.Functions = append(s.Functions, fs)
	}
	return s, nil
}
