//go:build linux

package containerd

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tatami-faas/tatami/runtime/attach"
)

// keepers are the connections to the keepers of sandboxes of our own making: one of this program, and those of earlier ones that still have
// sandboxes. They are found by the path of their socket.
type keepers struct {
	d *Driver
	// lost is called when a keeper has ended.
	lost func(path string)
	wait sync.WaitGroup

	mu      sync.Mutex
	program *attach.Program
	// prefix begins the paths of the sockets of keepers that run this very program; empty: not known yet.
	prefix string
	open   map[string]*attach.Keeper
	closed bool
}

func newKeepers(d *Driver, lost func(path string)) *keepers {
	return &keepers{d: d, lost: lost, open: map[string]*attach.Keeper{}}
}

// init is the program that keeper and inits run.
func (k *keepers) init() (*attach.Program, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.initLocked()
}

func (k *keepers) initLocked() (*attach.Program, error) {
	if k.program == nil {
		program, err := attach.NewProgram()
		if err != nil {
			return nil, err
		}
		k.program = program
	}
	return k.program, nil
}

// current is the keeper for new sandboxes, which runs this very program: one that is connected, one that an earlier run has left, or a new one.
func (k *keepers) current() (*attach.Keeper, string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, "", errors.New("the driver is closed")
	}
	if k.prefix == "" {
		raw, err := attach.Init()
		if err != nil {
			return nil, "", err
		}
		sum := sha256.Sum256(raw)
		k.prefix = filepath.Join(k.d.cfg.shimSockets(), "keeper-"+hex.EncodeToString(sum[:4])+"-")
	}
	for path, keeper := range k.open {
		if strings.HasPrefix(path, k.prefix) {
			return keeper, path, nil
		}
	}
	left, err := filepath.Glob(k.prefix + "*")
	if err != nil {
		return nil, "", err
	}
	for _, path := range left {
		if keeper, err := attach.ConnectKeeper(path); err == nil {
			k.add(path, keeper)
			return keeper, path, nil
		}
	}
	program, err := k.initLocked()
	if err != nil {
		return nil, "", err
	}
	path := k.prefix + strings.ToLower(rand.Text()[:6])
	keeper, err := attach.StartKeeper(program, path)
	if err != nil {
		return nil, "", err
	}
	k.add(path, keeper)
	return keeper, path, nil
}

// join connects to the keeper of a sandbox that an earlier run has left.
func (k *keepers) join(path string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open[path] != nil {
		return nil
	}
	keeper, err := attach.ConnectKeeper(path)
	if err != nil {
		return err
	}
	k.add(path, keeper)
	return nil
}

func (k *keepers) add(path string, keeper *attach.Keeper) {
	k.open[path] = keeper
	k.wait.Go(func() {
		<-keeper.Gone()
		k.mu.Lock()
		expected := k.open[path] != keeper
		if !expected {
			delete(k.open, path)
		}
		k.mu.Unlock()
		if !expected {
			keeper.Close()
			// One that was killed has not done that itself.
			_ = os.Remove(path)
			k.lost(path)
		}
	})
}

// alive reports whether the keeper is connected.
func (k *keepers) alive(path string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.open[path] != nil
}

// leave ends the connections, so that keepers without sandboxes end.
func (k *keepers) leave() {
	k.mu.Lock()
	open := k.open
	k.open = map[string]*attach.Keeper{}
	k.mu.Unlock()
	for _, keeper := range open {
		keeper.Close()
	}
}

func (k *keepers) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.leave()
	k.wait.Wait()
	if k.program != nil {
		k.program.Close()
	}
}
