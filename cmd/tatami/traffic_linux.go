package main

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/gateway/traffic"
)

// newTraffic makes what tells of all gateways. Where there is only one, nothing is to be added to its figures.
func (s *system) newTraffic() {
	own := s.invoker.Stats
	if s.bus.Identity().Cluster != "" {
		own = s.invoker.Detailed
	}
	s.traffic = traffic.New(traffic.Config{}, s.bus, own, s.log)
}

// liveTraffic shows what the gateways did to the live picture.
func (s *system) liveTraffic(ctx context.Context) live.Gateways {
	each := s.traffic.Ask(ctx)
	out := live.Gateways{All: liveFigures(traffic.Sum(each))}
	for _, g := range each {
		out.Each = append(out.Each, live.Gateway{Peer: g.Peer, Boot: g.Boot, Name: g.Name, Own: g.Own, Told: g.Told, Functions: liveFigures(g.Functions)})
	}
	return out
}

func liveFigures(stats []invoke.FunctionStats) []live.Traffic {
	out := make([]live.Traffic, 0, len(stats))
	for _, f := range stats {
		out = append(out, live.Traffic{
			Namespace: f.Namespace, Function: f.Function, Requests: f.Requests, Errors: f.Errors, ColdStarts: f.ColdStarts,
			InFlight: f.InFlight, Waiting: f.Waiting, RPS: f.RPS, P50: f.P50, P99: f.P99, Codes: f.Codes,
		})
	}
	return out
}

// apiTraffic shows what the gateways did to the control API.
func (s *system) apiTraffic(ctx context.Context) api.Traffic {
	each := s.traffic.Ask(ctx)
	out := api.Traffic{Servers: map[string]v1.GatewayTraffic{}}
	for _, f := range traffic.Sum(each) {
		out.Functions = append(out.Functions, api.FunctionTraffic{
			Ref: functions.Ref{Namespace: f.Namespace, Name: f.Function},
			Traffic: v1.Traffic{
				Requests: f.Requests, Errors: f.Errors, ColdStarts: f.ColdStarts, InFlight: f.InFlight, Waiting: f.Waiting,
				RPS: f.RPS, P50: f.P50, P99: f.P99,
			},
		})
	}
	for _, g := range each {
		if t := g.Total(); g.Told {
			out.Servers[g.Peer] = v1.GatewayTraffic{
				Requests: t.Requests, Errors: t.Errors, ColdStarts: t.ColdStarts, InFlight: t.InFlight, Waiting: t.Waiting, RPS: t.RPS,
			}
		}
	}
	return out
}
