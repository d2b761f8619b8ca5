package bus

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// RosterFile is the name of the file in the server's data directory that says which workers joined, by node, with a hash of the secret of each.
const RosterFile = "workers.json"

// secretFile is the name of the file in a worker's data directory with the secret that it made for itself.
const secretFile = "join.secret"

// mostWorkers bounds the roster: whoever has the token could fill the disk otherwise.
const mostWorkers = 20_000

// roster binds each node to the worker that joined as it first. It is safe for concurrent use.
type roster struct {
	dir string

	mu   sync.Mutex
	file rosterFile
}

type rosterFile struct {
	Schema int `json:"schema"`
	// Workers are the hashes of the secrets.
	Workers map[functions.NodeID]string `json:"workers"`
}

// openRoster reads the roster of a data directory; it is empty where nobody joined yet.
func openRoster(dir string) (*roster, error) {
	r := &roster{dir: dir, file: rosterFile{Schema: Schema, Workers: map[functions.NodeID]string{}}}
	path := filepath.Join(dir, RosterFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which workers joined: %w", err)
	}
	if r.file, err = parseRoster(path, data); err != nil {
		return nil, err
	}
	return r, nil
}

func parseRoster(path string, data []byte) (rosterFile, error) {
	var f rosterFile
	if err := json.Unmarshal(data, &f); err != nil || f.Schema < 1 || f.Workers == nil {
		return rosterFile{}, fault.New(fault.CodeConflict, "%s cannot be read", path).
			WithHint("restore the file from a backup, or remove it: the workers that join then are bound anew")
	}
	if f.Schema > Schema {
		return rosterFile{}, fault.New(fault.CodeConflict, "%s has schema %d, this tatami knows %d", path, f.Schema, Schema).
			WithHint("the data was written by a newer tatami: install that version")
	}
	return f, nil
}

// admit reports why a worker may not be the node: another one joined as it before. The first one is bound to it, on disk.
func (r *roster) admit(node functions.NodeID, secret string) error {
	sum := sha256.Sum256([]byte(secret))
	hash := hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	bound, known := r.file.Workers[node]
	switch {
	case known && equal(bound, hash):
		return nil
	case known:
		return fault.New(fault.CodeDenied, "another worker has joined as %s before", node)
	case len(secret) < minToken:
		return fault.New(fault.CodeDenied, "it has no secret of its own")
	case len(r.file.Workers) >= mostWorkers:
		return fault.New(fault.CodeDenied, "%d workers have joined already", mostWorkers)
	}
	r.file.Workers[node] = hash
	data, err := json.MarshalIndent(r.file, "", "  ")
	if err == nil {
		err = writeDurably(r.dir, RosterFile, append(data, '\n'))
	}
	if err != nil {
		delete(r.file.Workers, node)
		return fmt.Errorf("writing which workers joined: %w", err)
	}
	return nil
}
