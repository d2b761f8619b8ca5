//go:build linux

package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/attach"
)

// The host's user ids of sandboxes with a user namespace: ranges of idsEach, from ids that no distribution gives to users, services or
// other container managers. Each sandbox has a range of its own: costs nothing, and what one has made means nothing to another.
const (
	firstIDs  = 0x7000_0000
	idsEach   = 0x1_0000
	idsRanges = 4094
)

// rootCapabilities are what the root of a user namespace may do there, to what its namespaces own: give files away, read them all, become
// another user. No CAP_SYS_ADMIN: it cannot mount, and no capability of the host's.
func rootCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	}
}

// rootKeeps has a bit set for each of them.
func rootKeeps() uint64 {
	return 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID |
		1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE
}

// idRanges says which ranges are in use. The zero one stands for none.
type idRanges struct {
	mu   sync.Mutex
	used map[uint32]bool
	next uint32
}

// take returns the first host id of a free range.
func (r *idRanges) take() (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range idsRanges {
		base := firstIDs + r.next*idsEach
		r.next = (r.next + 1) % idsRanges
		if !r.used[base] {
			r.mark(base)
			return base, nil
		}
	}
	return 0, fault.New(fault.CodeNoCapacity, "all %d ranges of user ids are in use", idsRanges)
}

func (r *idRanges) mark(base uint32) {
	if r.used == nil {
		r.used = map[uint32]bool{}
	}
	r.used[base] = true
}

// claim takes the range of a process that runs already, and returns it.
func (r *idRanges) claim(pid int) uint32 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "uid_map"))
	if err != nil {
		return 0
	}
	var inside, outside, size uint32
	if n, err := fmt.Sscan(string(raw), &inside, &outside, &size); n != 3 || err != nil || inside != 0 || outside < firstIDs || size != idsEach {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark(outside)
	return outside
}

func (r *idRanges) give(base uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, base)
}

// mapped gives the specification a user namespace whose ids are the host's from base on.
func mapped(spec *specs.Spec, base uint32) {
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: idsEach}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
}

// mapIDs has the sandbox made in a user namespace with a range of ids of its own.
func (d *Driver) mapIDs(b *box, p *plan, art *artifact, sc scratch) error {
	base, err := d.ids.take()
	if err != nil {
		return err
	}
	b.ids = base
	mapped(p.spec, base)
	p.uid, p.gid = base+p.uid, base+p.gid
	p.root = &types.Mount{Type: "bind", Source: sc.root(), Options: []string{"rbind", "nosuid", "nodev"}}
	files := p.files
	p.files = func() error {
		if err := files(); err != nil {
			return err
		}
		if err := sc.give(base); err != nil {
			return err
		}
		return sc.mappedRoot(art, base)
	}
	return nil
}

// mappingOf opens a user namespace with the mapping, for mounts that are to show files by it.
func mappingOf(base uint32) (*os.File, error) {
	ids := fmt.Sprintf("0:%d:%d", base, idsEach)
	f, err := mount.GetUsernsFD(ids, ids)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return f, nil
}

// mappedRoot mounts the root of a sandbox with a user namespace at a place in its scratch: the layers' files seem to be owned by the
// range's users, without being changed.
func (s scratch) mappedRoot(art *artifact, base uint32) error {
	mapping, err := mappingOf(base)
	if err != nil {
		return err
	}
	defer mapping.Close()
	root, err := attach.NewRoot(art.lower, s.upper(), s.work(), mapping)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := os.Mkdir(s.root(), 0o755); err != nil {
		return err
	}
	return root.Mount(s.root())
}

// give makes the range's root the owner of what the sandbox's root is to own.
func (s scratch) give(base uint32) error {
	for _, dir := range []string{s.upper(), s.tmp(), s.shm()} {
		if err := os.Chown(dir, int(base), int(base)); err != nil {
			return err
		}
	}
	return nil
}

// tryUserNamespaces makes a root with a mapping where the sandboxes' layers lie, and says what does not work.
func (d *Driver) tryUserNamespaces() (err error) {
	for dir := d.cfg.RunDir; dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s cannot be entered by other users, and so not by a sandbox's", dir)
		}
	}
	layer, err := os.MkdirTemp(d.cfg.DataDir, "try-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(layer)) }()
	sc := d.scratch("try")
	defer func() { err = errors.Join(err, sc.remove()) }()
	if err := sc.make(functions.Limits{Ephemeral: spareScratch}, names{}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(layer, "file"), nil, 0o600); err != nil {
		return err
	}
	if err := sc.mappedRoot(&artifact{lower: []string{layer}}, firstIDs); err != nil {
		return err
	}
	st, err := os.Stat(filepath.Join(sc.root(), "file"))
	if err != nil {
		return err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); !ok || own.Uid != firstIDs {
		return errors.New("a mapped layer's files keep their owners")
	}
	return nil
}

// whyNoRoot says why images that name root run as another user; empty where they run as root of a user namespace.
func (d *Driver) whyNoRoot(err error) string {
	switch {
	case !d.cfg.UserNamespaces:
		return "user namespaces are switched off (--user-namespaces)"
	case err != nil:
		return "this machine lacks what user namespaces take: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return ""
}

// tellUser notes in the sandbox's description whom its process runs as.
func (d *Driver) tellUser(b *box, art *artifact) {
	u := art.user
	switch {
	case b.ids != 0:
		b.info.RunsAs = fmt.Sprintf("root of a user namespace, the node's users %d to %d", b.ids, b.ids+idsEach-1)
	case u.chosen:
		b.info.NotRoot = d.noRoot
		b.info.RunsAs = fmt.Sprintf("%d, though the image asks for root, as %s", u.uid, d.noRoot)
	default:
		b.info.RunsAs = fmt.Sprintf("%d:%d, as the image says", u.uid, u.gid)
	}
}
