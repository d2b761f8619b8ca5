package main

import (
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

// drive plays the trace against the whole scheduler.
func (s *simulation) drive(name string, budget int64, trace *sim.Trace) (*sim.Result, error) {
	d := sim.Drive{Start: sim.StartTime, IdleMemory: budget, KeepAlive: time.Second, KeepAliveMax: sim.Ceiling}
	if name != "auto" {
		kind, window, err := window(name)
		if err != nil || kind != "fixed" {
			return nil, fault.New(fault.CodeInvalidRequest, "policy: the scheduler has auto and fixed windows, not %.40q", name).WithField("policy").
				WithHint("leave --whole out, or name --policy auto,fixed-10m")
		}
		d.KeepAlive, d.KeepAliveMax = window, 0
	}
	return d.Run(trace), nil
}
