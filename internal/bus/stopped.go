package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// StoppedWorker reads which node the data directory of a worker is, and keeps workers from it until the function that it returns is called. The fault is
// not-found where no worker has joined with the directory, and conflict where one runs.
func StoppedWorker(dir string) (functions.NodeID, func(), error) {
	path := filepath.Join(dir, IdentityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fault.New(fault.CodeNotFound, "%s is no worker's data directory", dir)
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the identity of the data directory: %w", err)
	}
	id, err := parseIdentity(path, ModeWorker, data)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockDir(dir, ModeWorker)
	if err != nil {
		return "", nil, err
	}
	return id.Node, func() { _ = lock.Close() }, nil
}
