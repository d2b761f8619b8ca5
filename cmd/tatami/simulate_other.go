//go:build !linux

package main

import (
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

// drive would play the trace against the whole scheduler, which runs on Linux only.
func (*simulation) drive(string, int64, *sim.Trace) (*sim.Result, error) {
	return nil, fault.New(fault.CodeInvalidRequest, "whole: the whole scheduler runs on Linux only").WithField("whole").WithHint("leave --whole out")
}
