package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

// Whatever calls go through in this process tells the one keeper of processors.
func TestOneKeeperOfProcessors(t *testing.T) {
	t.Parallel()
	cfg := upConfig{nodeConfig: nodeConfig{StayAwake: "never"}}
	defer cfg.keepAwake(slog.New(slog.DiscardHandler))()
	s := &system{cfg: cfg}
	if cfg.keeper == nil || cfg.worker(functions.NewNodeID()).Awake != cfg.keeper || s.gatewayConfig().Awake != cfg.keeper {
		t.Errorf("not all have %p", cfg.keeper)
	}
	if !strings.Contains(cfg.keptAwake, "never") {
		t.Errorf("told of it: %q", cfg.keptAwake)
	}
}
