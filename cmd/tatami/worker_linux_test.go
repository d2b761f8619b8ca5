package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

// A token for one worker may be removed when the worker has joined: it starts again without. One that has not joined needs it.
func TestAWorkerThatHasJoinedNeedsNoToken(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	cfg := workerConfig{TokenFile: filepath.Join(t.TempDir(), "gone")}
	cfg.DataDir = t.TempDir()
	if _, err := cfg.token(log); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("without having joined: %v", err)
	}
	for _, name := range []string{"node.pem", "node.key"} {
		if err := os.WriteFile(filepath.Join(cfg.DataDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if token, err := cfg.token(log); err != nil || token != "" {
		t.Errorf("%q, %v", token, err)
	}
	if err := os.WriteFile(cfg.TokenFile, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.token(log); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("a file that holds no token: %v", err)
	}
}
