//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	clog "github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/egress"
	"github.com/tatami-faas/tatami/runtime/listens"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

var _ sandbox.Driver = (*Driver)(nil)

// lockTime is how long a process that was killed may hold a lock: until the children that it was starting have become other programs.
const lockTime = time.Second

// Driver makes sandboxes with containerd. Its methods wait until Run or Start has it ready.
type Driver struct {
	cfg    Config
	blobs  BlobSource
	log    *slog.Logger
	cgroup *cgroups
	// library is containerd's logger.
	library *logrus.Entry

	ready chan struct{}
	// ctx ends with Close: whatever goes on beyond one call hangs on it.
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	engine *engine
	client *client.Client
	// runc is the path of the OCI runtime.
	runc    string
	sockets *socketMaker
	locks   []*os.File
	pulls   singleflight.Group
	// pool and mapped are the sandboxes that wait, without a user namespace and with one.
	pool, mapped *pool
	// precreated are the containers that wait for starts that no sandbox of the pools is for.
	precreated *precreated

	egress  *egress.Network
	keepers *keepers
	// filter is the seccomp filter of every sandbox of our own making.
	filter func() ([]byte, error)
	ids    idRanges
	// awaited is how many functions are waited for until they listen.
	awaited atomic.Int64
	// listeners tells of functions that begin to listen; nil where nobody can.
	listeners atomic.Pointer[listens.Watch]
	// noRoot says why images that name root run as another user; empty where they are root of a user namespace. It does not change once
	// the driver works.
	noRoot string

	mu        sync.Mutex
	started   bool
	closed    bool
	prepared  map[string]bool
	artifacts map[string]*artifact
	boxes     map[functions.InstanceID]*box
}

// New makes a driver; it starts nothing.
func New(cfg Config, blobs BlobSource, log *slog.Logger) (*Driver, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("containerd driver: %w", err)
	}
	d := &Driver{
		cfg: cfg, blobs: blobs, log: log,
		library:   libraryLogger(log),
		cgroup:    newCgroups(cgroupRoot, cfg.ParentCgroup),
		ready:     make(chan struct{}),
		sockets:   newSocketMaker(),
		prepared:  map[string]bool{},
		artifacts: map[string]*artifact{},
		boxes:     map[functions.InstanceID]*box{},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	var err error
	if d.egress, err = egress.New(cfg.Egress, log); err != nil {
		return nil, fmt.Errorf("containerd driver: %w", err)
	}
	bounds := boundsOf(cfg.SandboxPool, cfg.Memory)
	d.pool, d.mapped = newPool(d, bounds), newPool(d, bounds.mapped())
	d.mapped.mapped = true
	for _, p := range d.pools() {
		p.links.bounds = p.bounds.linked(d.egress.Room())
	}
	d.precreated = newPrecreated(d, precreatedBound(cfg.Precreated, cfg.Memory))
	d.keepers = newKeepers(d, d.keeperLost)
	d.filter = sync.OnceValues(defaultFilter)
	return d, nil
}

// Run starts the driver and closes it when ctx ends. Sandboxes keep running.
func (d *Driver) Run(ctx context.Context) error {
	if err := d.Start(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return d.Close()
}

// Ready is closed once the driver works.
func (d *Driver) Ready() <-chan struct{} { return d.ready }

// Start starts containerd or connects to it, adopts what runs from an earlier time, and removes what a crash has left half made.
func (d *Driver) Start(ctx context.Context) (err error) {
	d.mu.Lock()
	if d.started || d.closed {
		d.mu.Unlock()
		return errors.New("containerd driver: started twice or closed")
	}
	d.started = true
	d.mu.Unlock()
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()

	if os.Geteuid() != 0 {
		return fault.New(fault.CodeDenied, "running containers needs root").WithHint("run it as root, or with sudo")
	}
	if d.runc, err = findRunc(); err != nil {
		return err
	}
	for _, dir := range []string{d.cfg.DataDir, d.cfg.RunDir, d.cfg.shimSockets(), d.cfg.runcRoot(), d.cfg.scratchRoot(), d.cfg.logRoot(), d.cfg.mountRoot(), d.cfg.fifoRoot(), d.cfg.attachments(), d.cfg.exits()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("containerd driver: %w", err)
		}
	}
	for _, dir := range []string{d.cfg.DataDir, d.cfg.RunDir} {
		if err := d.lock(dir); err != nil {
			return err
		}
	}
	limit := d.cfg.Allocatable
	if limit.Memory > 0 {
		limit.Memory += mostWaiting(d.cfg.SandboxPool, d.cfg.Memory)*spareCharge + int64(d.precreated.most)*PrecreatedCost
	}
	if err := d.cgroup.setup(limit); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "the cgroup %s cannot be made", d.cfg.ParentCgroup)
	}
	if d.cfg.UserNamespaces {
		// Sandboxes' users must get through to their own roots.
		if err := os.Chmod(d.cfg.RunDir, 0o711); err != nil {
			return fmt.Errorf("containerd driver: %w", err)
		}
		err = d.tryUserNamespaces()
	}
	if d.noRoot = d.whyNoRoot(err); d.noRoot != "" {
		d.log.Info("images that name root run as another user", "uid", nobody, "why", d.noRoot)
	}
	exits := d.recordedExits()
	if err := d.connect(); err != nil {
		return err
	}
	d.sockets.start()
	d.background(d.hearListeners)
	ctx = d.scope(ctx)
	if d.engine != nil {
		if err := d.groupShims(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(d.adopt(ctx, exits), d.adoptOwn()); err != nil {
		return fmt.Errorf("adopt the sandboxes of an earlier run: %w", err)
	}
	d.sweep(ctx)
	// Links go with the sandboxes that were swept, all at once; those that are left are removed one by one.
	d.adoptLinks()
	mapped, err := d.loadPrepared(ctx)
	if err != nil {
		return fmt.Errorf("list the artifacts: %w", err)
	}
	d.pool.open()
	if mapped && d.noRoot == "" {
		d.mapped.open()
	}
	d.precreated.open()
	close(d.ready)
	return nil
}

func (d *Driver) connect() error {
	if d.cfg.Address != "" {
		c, err := client.New(d.cfg.Address, client.WithDefaultNamespace(namespace))
		if err != nil {
			return fault.Wrap(fault.CodeUnavailable, err, "containerd does not answer at %s", d.cfg.Address).
				WithHint("start it, or leave out the address to use the one inside this program")
		}
		d.client = c
		return nil
	}
	e, err := startEngine(d.scope(d.ctx), d.cfg, d.log)
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "containerd cannot be started inside this process")
	}
	d.engine, d.client = e, e.client
	return nil
}

// Close stops the driver. Sandboxes keep running; a later driver on the same directories adopts them. The process that closed a driver
// should end soon: containerd keeps its connections to the shims until then.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	boxes := len(d.boxes)
	d.mu.Unlock()

	d.cancel()
	d.tasks.Wait()
	d.precreated.drain()
	d.drainPools()
	d.keepers.close()
	d.sockets.close()
	if err := d.egress.Close(); err != nil {
		d.log.Warn("the host's network settings are not as they were", "err", err)
	}
	d.mu.Lock()
	for _, b := range d.boxes {
		b.release()
	}
	d.mu.Unlock()
	switch {
	case d.engine != nil:
		d.engine.close(d.log)
	case d.client != nil:
		_ = d.client.Close()
	}
	if boxes == 0 && len(d.locks) > 0 {
		d.cgroup.removeParent()
	}
	for _, f := range d.locks {
		f.Close()
	}
	return nil
}

// lock keeps another driver off the directory: it would take our sandboxes for what a crash has left.
func (d *Driver) lock(dir string) error {
	path := filepath.Join(dir, "driver.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for begun := time.Now(); errors.Is(err, unix.EWOULDBLOCK) && time.Since(begun) < lockTime; {
		time.Sleep(10 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fault.New(fault.CodeConflict, "another process uses %s", dir).WithHint("stop it, or name other directories")
		}
		return &os.PathError{Op: "lock", Path: path, Err: err}
	}
	d.locks = append(d.locks, f)
	return nil
}

// background runs f until Close; not at all once that was called.
func (d *Driver) background(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.tasks.Go(f)
	}
}

// hearListeners has the kernel tell of functions that begin to listen, until Close. Where it cannot, they are asked again and again.
func (d *Driver) hearListeners() {
	tree := d.cgroup.unified()
	if tree == "" {
		d.log.Info("functions are asked whether they listen: there is no cgroup of version 2")
		return
	}
	w, err := listens.Open(tree)
	if err != nil {
		d.log.Info("functions are asked whether they listen: the kernel does not tell", "err", err)
		return
	}
	d.listeners.Store(w)
	stop := context.AfterFunc(d.ctx, func() { _ = w.Close() })
	defer stop()
	if err := w.Run(); err != nil {
		d.listeners.Store(nil)
		d.log.Warn("functions are asked whether they listen", "err", err)
	}
}

// scope prepares a context for calls to containerd: our namespace, a quiet logger.
func (d *Driver) scope(ctx context.Context) context.Context {
	return clog.WithLogger(namespaces.WithNamespace(ctx, namespace), d.library)
}

// await returns ctx in our scope once the driver works.
func (d *Driver) await(ctx context.Context) (context.Context, error) {
	select {
	case <-d.ctx.Done():
		return nil, fault.New(fault.CodeUnavailable, "the containerd driver is closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.ready:
		return d.scope(ctx), nil
	}
}

// List returns every sandbox that exists, and goes on with the removals that an ended context has left unfinished.
func (d *Driver) List(ctx context.Context) ([]sandbox.Sandbox, error) {
	if _, err := d.await(ctx); err != nil {
		return nil, err
	}
	for _, b := range d.all() {
		if b.stopBegun() {
			if err := b.Stop(ctx, 0); err != nil {
				d.log.Warn("a sandbox is not removed yet", "inst", b.info.ID, "err", err)
			}
		}
	}
	boxes := d.all()
	out := make([]sandbox.Sandbox, len(boxes))
	for i, b := range boxes {
		out[i] = b
	}
	return out, nil
}

// all returns the sandboxes that are made, in order of their ids.
func (d *Driver) all() []*box {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*box
	for _, b := range d.boxes {
		if b.made {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *box) int {
		if a.info.ID < b.info.ID {
			return -1
		}
		return 1
	})
	return out
}

// findRunc finds the OCI runtime.
func findRunc() (string, error) {
	p, err := FindProgram("runc")
	if err != nil {
		return "", fault.New(fault.CodeUnavailable, "runc is not installed; it makes the containers").WithHint("apt-get install runc")
	}
	return p, nil
}

// FindProgram returns the path of a program. It looks where distributions put programs, too, as a service's PATH may lack the directories of the
// superuser. An error is exec.ErrNotFound.
func FindProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("the program %s: %w", name, exec.ErrNotFound)
}

// defaultSnapshotter is the one whose views are overlay's lower directories.
const defaultSnapshotter = defaults.DefaultSnapshotter
