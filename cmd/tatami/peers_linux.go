package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

const (
	// peersFile is the name of the file in a server's data directory with the peers that were found last.
	peersFile = "peers.json"
	// peersSchema is the schema number of that file.
	peersSchema = 1
	// firstPeers bounds the search of a server that knows none, knownPeers that of one that knows them from before: the others may be away.
	firstPeers = 5 * time.Minute
	knownPeers = 5 * time.Second
)

// foundPeers are the peers that were found last.
type foundPeers struct {
	Schema int      `json:"schema"`
	Peers  []string `json:"peers"`
}

// findPeers completes the configuration by the peers that Nomad tells of, where it is to. Those of the last time count while not all are there.
func (c *serverConfig) findPeers(ctx context.Context, reach func() (*nomad.Client, error), log *slog.Logger) error {
	if c.PeersService == "" {
		return nil
	}
	path := filepath.Join(c.DataDir, peersFile)
	known, err := readPeers(path)
	if err != nil {
		return err
	}
	client, err := reach()
	if err != nil {
		return err
	}
	patience := firstPeers
	if known != nil {
		patience = knownPeers
	}
	search, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := nomad.Peers(search, client, c.PeersService, c.PeersCount, log)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case known != nil:
		log.Warn("not all servers are found; those of the last time count", "peers", known, "err", err)
		c.Peers = known
		return nil
	default:
		return fault.Wrap(fault.CodeUnavailable, err, "--peers-service: the %d servers were not found within %s", c.PeersCount, patience).WithField("peers-service").
			WithHint("look whether as many run: nomad service info %s; or name them: --peers A,B,C", c.PeersService)
	}
	if c.Peers = found; slices.Equal(found, known) {
		return nil
	}
	data, err := json.Marshal(foundPeers{peersSchema, found})
	if err == nil {
		err = os.WriteFile(path+".new", append(data, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fault.Wrap(fault.CodeInternal, err, "noting the peers that were found")
	}
	return nil
}

// readPeers reads the peers of the last time; nil where there was none.
func readPeers(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f foundPeers
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err == nil && (f.Schema != peersSchema || len(f.Peers) == 0) {
		err = fault.New(fault.CodeConflict, "it has schema %d and %d peers", f.Schema, len(f.Peers))
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "%s cannot be read", path).WithHint("remove the file: the servers are looked for again")
	}
	return f.Peers, nil
}
