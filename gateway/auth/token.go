package auth

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// tokenBytes of randomness make a token.
const tokenBytes = 32

func newSecret() string {
	var b [tokenBytes]byte
	// crypto/rand.Read never fails: the runtime ends the program where the system has no randomness.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// loadToken reads the token file, or makes it, mode 0600.
func loadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t := newSecret()
		return t, storeToken(path, t)
	}
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if !isToken(t) {
		return "", fault.New(fault.CodeInternal, "%s holds no token", path).WithHint("remove it: the next start makes a new one")
	}
	// A token that others could read is closed to them; it stays valid, for who could read it was on this machine.
	return t, os.Chmod(path, 0o600)
}

// isToken reports whether a text can be a token.
func isToken(t string) bool { return len(t) >= 2*tokenBytes && !strings.ContainsAny(t, " \t\r\n") }

// storeToken replaces the token file as a whole: a crash leaves the old token or the new one.
func storeToken(path, token string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".token-*") // mode 0600
	if err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.WriteString(token + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	return nil
}
