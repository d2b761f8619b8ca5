package api

import (
	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// Traffic is what the gateways of the cluster saw together, or the only one.
type Traffic struct {
	Functions []FunctionTraffic
	// Servers is what the gateway of each server saw, by its peer. One that is not among them did not tell, and is missing from Functions.
	Servers map[string]v1.GatewayTraffic
}

// FunctionTraffic is what the gateways saw of a function.
type FunctionTraffic struct {
	Ref functions.Ref
	v1.Traffic
}

// without names the servers whose gateways did not tell what they saw.
func without(servers []v1.Server) []string {
	var out []string
	for _, s := range servers {
		if s.Traffic == nil {
			out = append(out, s.Name)
		}
	}
	return out
}
