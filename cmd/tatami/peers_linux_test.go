package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
	"github.com/tatami-faas/tatami/scheduler/nomad/jobs"
	"github.com/tatami-faas/tatami/tests/fakenomad"
)

// The servers of the job find each other by its service; where Nomad is away those of the last time count.
func TestServersFindEachOther(t *testing.T) {
	t.Parallel()
	c := fakenomad.New(fakenomad.Config{})
	t.Cleanup(c.Close)
	admin, err := nomad.At(c.URL(), fakenomad.Token)
	if err != nil {
		t.Fatal(err)
	}
	job, err := jobs.Server(jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := admin.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	token := c.Allow("list-jobs", "read-job", "scale-job", "node:read")
	reach := func() (*nomad.Client, error) { return nomad.At(c.URL(), token) }
	cfg := serverConfig{PeersService: "tatami-cluster", PeersCount: 3}
	cfg.DataDir = t.TempDir()
	want := []string{"127.0.0.1:6222", "127.0.0.2:6222", "127.0.0.3:6222"}
	log := slog.New(slog.DiscardHandler)
	if err := cfg.findPeers(t.Context(), reach, log); err != nil || !slices.Equal(cfg.Peers, want) {
		t.Fatalf("%v, %v", cfg.Peers, err)
	}
	cfg.Peers, cfg.PeersService = nil, "another"
	if err := cfg.findPeers(t.Context(), reach, log); err != nil || !slices.Equal(cfg.Peers, want) {
		t.Errorf("where none is found: %v, %v", cfg.Peers, err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, peersFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cfg.findPeers(t.Context(), reach, log); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a file that says nothing: %v", err)
	}
}
