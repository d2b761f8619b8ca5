package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Modes of a data directory.
const (
	// ModeStandalone is that of a server that forms no cluster.
	ModeStandalone = "standalone"
	// ModeCluster is that of a server of a cluster.
	ModeCluster = "cluster"
	// ModeMoved is that of one that stood alone, and of which a cluster took everything over.
	ModeMoved = "moved"
	// ModeWorker is that of a worker that joins a server.
	ModeWorker = "worker"
)

// verbOf is the command that runs on a data directory of the mode.
func verbOf(mode string) string {
	switch mode {
	case ModeStandalone:
		return "up"
	case ModeCluster:
		return "server"
	}
	return mode
}

// IdentityFile is the name of the file in the data directory that says whose data it is.
const IdentityFile = "tatami.json"

// lockFile is held by the process that uses the data directory.
const lockFile = "tatami.lock"

// Identity says whose data a data directory holds. It is written once.
type Identity struct {
	Schema int `json:"schema"`
	// Mode is how the store was laid out: a store of one mode is lost when it is opened in another.
	Mode string `json:"mode"`
	// Node is the machine's node.
	Node functions.NodeID `json:"node"`
	// ServerName is the NATS server's name; the store is bound to it. Empty where there is no server.
	ServerName string `json:"serverName,omitempty"`
	// Cluster is the name of the cluster that the server belongs to.
	Cluster string `json:"cluster,omitempty"`
	// Peer is which of the cluster's peers the server was when it last ran; empty before.
	Peer string `json:"peer,omitempty"`
	// Epoch is that of the only scheduler, where the data is that of a cluster before: workers that stayed refuse commands of a lower one. Zero: Epoch.
	Epoch   uint64    `json:"epoch,omitempty"`
	Created time.Time `json:"created"`
}

// loadIdentity reads the identity of a data directory of the mode, and of the cluster where it is a server of one, or gives it one.
func loadIdentity(dir, mode, cluster string, now time.Time) (Identity, error) {
	path := filepath.Join(dir, IdentityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createIdentity(dir, mode, cluster, now)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("reading the identity of the data directory: %w", err)
	}
	id, err := parseIdentity(path, mode, data)
	if err == nil && id.Cluster != cluster {
		return Identity{}, fault.New(fault.CodeConflict, "%s belongs to the cluster %q, not to %q", path, id.Cluster, cluster).
			WithHint("run: tatami %s --cluster %s --data-dir %s", verbOf(mode), id.Cluster, dir)
	}
	return id, err
}

func parseIdentity(path, mode string, data []byte) (Identity, error) {
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return Identity{}, fault.Wrap(fault.CodeConflict, err, "%s cannot be read", path).
			WithHint("restore the file from a backup, or start on another directory: tatami %s --data-dir DIR", verbOf(mode))
	}
	if id.Schema > Schema {
		return Identity{}, fault.New(fault.CodeConflict, "%s has schema %d, this tatami knows %d", path, id.Schema, Schema).
			WithHint("the data was written by a newer tatami: install that version, then run: tatami %s --data-dir %s", verbOf(mode), filepath.Dir(path))
	}
	if id.Mode == ModeMoved {
		return Identity{}, fault.New(fault.CodeConflict, "what %s holds is in the cluster %q now", filepath.Dir(path), id.Cluster).
			WithHint("ask the servers of the cluster; to begin anew, start on another directory: tatami %s --data-dir DIR", verbOf(mode))
	}
	if id.Mode == ModeStandalone && mode == ModeCluster {
		return Identity{}, fault.New(fault.CodeConflict, "%s is of a server that stands alone: a cluster would delete what it has stored", path).
			WithHint("bring it into a cluster: tatami cluster init --from %s --data-dir NEW --out FILE; or go on alone: tatami up --data-dir %s", filepath.Dir(path), filepath.Dir(path))
	}
	if id.Mode != mode {
		return Identity{}, fault.New(fault.CodeConflict, "%s belongs to mode %q, not to %q", path, id.Mode, mode).
			WithHint("run: tatami %s --data-dir %s", verbOf(id.Mode), filepath.Dir(path))
	}
	if id.Schema < 1 || !id.Node.Valid() || mode != ModeWorker && id.ServerName == "" {
		return Identity{}, fault.New(fault.CodeConflict, "%s is incomplete", path).
			WithHint("restore the file from a backup, or start on another directory: tatami %s --data-dir DIR", verbOf(mode))
	}
	return id, nil
}

// createIdentity gives a directory its identity, unless a store without one lies there.
func createIdentity(dir, mode, cluster string, now time.Time) (Identity, error) {
	if _, err := os.Stat(filepath.Join(dir, storeDir)); err == nil {
		return Identity{}, fault.New(fault.CodeConflict, "%s holds a store but no %s", dir, IdentityFile).
			WithHint("restore the file from a backup, or start on another directory: tatami %s --data-dir DIR", verbOf(mode))
	}
	node := functions.NewNodeID()
	id := Identity{Schema: Schema, Mode: mode, Node: node, Cluster: cluster, Created: now.UTC().Truncate(time.Second)}
	if mode != ModeWorker {
		id.ServerName = "tatami-" + strings.TrimPrefix(string(node), "nod_")[:10]
	}
	return id, id.write(dir)
}

func (id Identity) write(dir string) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the identity: %w", err)
	}
	if err := writeDurably(dir, IdentityFile, append(data, '\n')); err != nil {
		return fmt.Errorf("writing the identity of the data directory: %w", err)
	}
	return nil
}

// writeDurably puts a file into dir so that it is there whole, or not at all, after a loss of power.
func writeDurably(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncPath(dir)
}

// lockTime is how long a process that was just killed may hold the lock: until its last thread, and the last child it was making, are gone.
const lockTime = 2 * time.Second

// lockDir makes the directory where it is missing and holds it for this process. The lock goes with the process.
func lockDir(dir, mode string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for begun := time.Now(); errors.Is(err, syscall.EWOULDBLOCK) && time.Since(begun) < lockTime; {
		time.Sleep(10 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := "another process"
		if b, rerr := os.ReadFile(path); rerr == nil && len(b) > 0 {
			holder = "process " + strings.TrimSpace(string(b))
		}
		_ = f.Close()
		return nil, fault.New(fault.CodeConflict, "the data directory %s is in use by %s", dir, holder).
			WithHint("stop it first, or start on another directory: tatami %s --data-dir DIR", verbOf(mode))
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}
