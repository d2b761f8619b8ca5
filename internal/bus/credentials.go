package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Files in a worker's data directory: the key pair that it made for itself, and what stood in its place once.
const (
	keyFile    = "node.key"
	secretFile = "join.secret"
)

// credentials are how a worker shows who it is.
type credentials struct {
	key nkeys.KeyPair
	pub string
	// secret is empty but in a directory of a worker that had one before it had a key.
	secret string
}

// loadCredentials reads a worker's credentials, or makes them.
func loadCredentials(dir string) (credentials, error) {
	path := filepath.Join(dir, keyFile)
	var c credentials
	seed, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if c.key, err = nkeys.CreateUser(); err != nil {
			return c, fmt.Errorf("making the worker's key: %w", err)
		}
		if seed, err = c.key.Seed(); err == nil {
			err = writeDurably(dir, keyFile, append(seed, '\n'))
		}
		if err != nil {
			return c, fmt.Errorf("writing the worker's key: %w", err)
		}
	case err != nil:
		return c, fmt.Errorf("reading the worker's key: %w", err)
	default:
		if c.key, err = nkeys.FromSeed([]byte(strings.TrimSpace(string(seed)))); err != nil {
			return c, fault.Wrap(fault.CodeConflict, err, "%s holds no key", path).
				WithHint("restore the file from a backup, or start on another directory: tatami worker --data-dir DIR")
		}
	}
	if c.pub, err = c.key.PublicKey(); err != nil {
		return c, fmt.Errorf("reading the worker's key: %w", err)
	}
	secret, err := ReadToken(filepath.Join(dir, secretFile))
	if err == nil {
		c.secret = secret
	} else if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	return c, nil
}

// option has the connection show the key.
func (c credentials) option() nats.Option { return nats.Nkey(c.pub, c.key.Sign) }
