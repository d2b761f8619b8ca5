//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// engine is containerd inside this process.
type engine struct {
	client  *client.Client
	plugins []*plugin.Plugin
	cancel  context.CancelFunc
}

// startEngine loads containerd's plugins and returns once its client works. What runs from an earlier start is loaded with it.
func startEngine(ctx context.Context, cfg Config, log *slog.Logger) (_ *engine, err error) {
	sc := &srvconfig.Config{
		Version: 4,
		Root:    cfg.contentRoot(),
		State:   cfg.engineState(),
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": cfg.engineSocket()},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": cfg.engineSocket() + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{
				"socket_dir": cfg.shimSockets(),
				// Under systemd this process has one, and runc would take it for the container's.
				"env": []string{"NOTIFY_SOCKET="},
			},
		},
	}
	if err := server.CreateTopLevelDirectories(sc); err != nil {
		return nil, fmt.Errorf("make the directories of containerd: %w", err)
	}
	if err := linkShim(cfg.shimBinary()); err != nil {
		return nil, err
	}
	// The default is the system's temporary directory, where nobody would look for what a crash leaves mounted.
	if err := mount.SetTempMountLocation(cfg.mountRoot()); err != nil {
		return nil, err
	}

	leadStandard(log)
	// Its own end comes after that of ctx: Close stops the driver's calls first.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &engine{cancel: cancel}
	defer func() {
		if err != nil {
			e.close(log)
		}
	}()

	var ready sync.WaitGroup
	var servers []interface{ Start(context.Context) error }
	loaded := plugin.NewPluginSet()
	properties := func(id string) map[string]string {
		return map[string]string{
			plugins.PropertyRootDir:      filepath.Join(sc.Root, id),
			plugins.PropertyStateDir:     filepath.Join(sc.State, id),
			plugins.PropertyGRPCAddress:  cfg.engineSocket(),
			plugins.PropertyTTRPCAddress: cfg.engineSocket() + ".ttrpc",
		}
	}
	for _, reg := range registry.Graph(unwanted) {
		id := reg.URI()
		ic := plugin.NewContext(ctx, loaded, properties(id))
		ic.RegisterReadiness = func() func() { ready.Add(1); return ready.Done }
		if reg.Config != nil {
			if ic.Config, err = sc.Decode(ctx, id, reg.Config); err != nil {
				return nil, fmt.Errorf("configure %s: %w", id, err)
			}
		}
		p := reg.Init(ic)
		if err := loaded.Add(p); err != nil {
			return nil, fmt.Errorf("load %s: %w", id, err)
		}
		instance, err := p.Instance()
		if plugin.IsSkipPlugin(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", id, err)
		}
		e.plugins = append(e.plugins, p)
		if reg.Type == plugins.ServerPlugin {
			s, ok := instance.(interface{ Start(context.Context) error })
			if !ok {
				return nil, fmt.Errorf("load %s: it cannot be started", id)
			}
			servers = append(servers, s)
		}
	}
	if err := e.cleanSnapshots(ctx, sc.Root); err != nil {
		return nil, err
	}
	for _, s := range servers {
		if err := s.Start(ctx); err != nil {
			return nil, fmt.Errorf("start containerd: %w", err)
		}
	}
	ready.Wait()
	e.client, err = client.New("", client.WithDefaultNamespace(namespace), client.WithInMemoryServices(plugin.NewContext(ctx, loaded, nil)))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return e, nil
}

// cleanSnapshots removes the directories of snapshots that a crash kept from being recorded: the next snapshot would get their number,
// and fail on them.
func (e *engine) cleanSnapshots(ctx context.Context, root string) error {
	for _, p := range e.plugins {
		if p.Registration.Type != plugins.SnapshotPlugin {
			continue
		}
		instance, err := p.Instance()
		if err != nil {
			return err
		}
		c, ok := instance.(snapshots.Cleaner)
		if !ok {
			continue
		}
		err = c.Cleanup(ctx)
		if errdefs.IsNotFound(err) {
			// Nothing was ever recorded, so nothing there is in use.
			dir := filepath.Join(root, p.Registration.URI(), "snapshots")
			if err = os.RemoveAll(dir); err == nil {
				err = os.Mkdir(dir, 0o700)
			}
		}
		if err != nil {
			return fmt.Errorf("clean up the snapshots: %w", err)
		}
	}
	return nil
}

// unwanted leaves out the shim's plugin and those that register themselves with a process-wide registry of metrics, which can be done once.
func unwanted(r *plugin.Registration) bool {
	return r.URI() == shimTask || r.Type == plugins.MetricsPlugin || r.URI() == "io.containerd.server.v1.grpc-tcp"
}

// close stops containerd. The shims and what they hold keep running.
func (e *engine) close(log *slog.Logger) {
	for _, p := range slices.Backward(e.plugins) {
		instance, err := p.Instance()
		if err != nil {
			continue
		}
		if c, ok := instance.(io.Closer); ok {
			if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				log.Debug("close a part of containerd", "part", p.Registration.URI(), "err", err)
			}
		}
	}
	e.cancel()
}

// linkShim makes path lead to this program: bundles remember it, and after an upgrade it leads to the new program.
func linkShim(path string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(self, next); err != nil {
		return err
	}
	return os.Rename(next, path)
}
