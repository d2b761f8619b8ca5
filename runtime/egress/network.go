//go:build linux

package egress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Network is a node's links. Its methods may be called at the same time.
type Network struct {
	cfg    Config
	prefix string
	log    *slog.Logger

	cancel context.CancelFunc
	watch  sync.WaitGroup

	// trial is what Obstacle found last.
	trial struct {
		sync.Mutex
		at  time.Time
		err error
	}

	mu        sync.Mutex
	addresses *addresses
	owners    map[string]slot
	// up says that the table is there and forwarding is on.
	up  bool
	mtu int
	now rules
}

// New makes a network that has nothing yet.
func New(cfg Config, log *slog.Logger) (*Network, error) {
	cfg = cfg.withDefaults()
	if cfg.Name == "" || cfg.State == "" {
		return nil, errors.New("egress: Name and State are required")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, prefix: namePrefix + cfg.tag(), log: log, addresses: newAddresses(cfg.Range), owners: map[string]slot{}, cancel: func() {}}
	n.now = rules{prefix: n.prefix, cfg: cfg}
	return n, nil
}

// Owners lists who has a link, "" for a link whose making was interrupted.
func (n *Network) Owners() ([]string, error) {
	links, err := owned(n.prefix)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range links {
		out = append(out, o)
	}
	slices.Sort(out)
	return out, nil
}

// Adopt takes over the links of those that are known, and removes all others. It must come before the first Plug.
func (n *Network) Adopt(known func(owner string) bool) error {
	links, err := owned(n.prefix)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all error
	for s, owner := range links {
		if owner == "" || !known(owner) {
			all = errors.Join(all, removeLink(s.name(n.prefix)))
			continue
		}
		if err := n.addresses.claim(s); err != nil {
			all = errors.Join(all, err)
			continue
		}
		n.owners[owner] = s
	}
	if len(n.owners) > 0 {
		return errors.Join(all, n.start())
	}
	return errors.Join(all, n.undo())
}

// trialHolds is how long a try that failed counts.
const trialHolds = time.Minute

// Obstacle says what keeps this node from giving links, nil where nothing does. The first call tries it, and so does one each minute after a try
// that failed.
func (n *Network) Obstacle() error {
	n.mu.Lock()
	up := n.up
	n.mu.Unlock()
	if up {
		return nil
	}
	t := &n.trial
	t.Lock()
	defer t.Unlock()
	if now := time.Now(); t.at.IsZero() || t.err != nil && now.Sub(t.at) >= trialHolds {
		t.at, t.err = now, Probe(n.cfg)
	}
	return t.err
}

// Plug gives the sandbox a link. owner is at most 255 bytes and has none yet.
func (n *Network) Plug(owner string, netns *os.File) error {
	s, err := n.reserve(owner)
	if fault.From(err) != nil {
		return err
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "this node cannot give a function egress").WithHint("see tatami doctor on the node")
	}
	if err := n.makeLink(s, owner, netns); err != nil {
		return errors.Join(fmt.Errorf("connect the sandbox %s: %w", owner, err), n.Unplug(owner))
	}
	return nil
}

func (n *Network) reserve(owner string) (slot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.start(); err != nil {
		return 0, err
	}
	if _, there := n.owners[owner]; there {
		return 0, fmt.Errorf("%s has a link already", owner)
	}
	s, err := n.addresses.take()
	if err == nil {
		n.owners[owner] = s
	}
	return s, err
}

// Room is how many links the range has addresses for. Other nodes on the same host may use some of them.
func (n *Network) Room() int { return n.addresses.count() * perBlock }

// Holds reports whether the owner has a link whose device is there.
func (n *Network) Holds(owner string) bool {
	n.mu.Lock()
	s, there := n.owners[owner]
	n.mu.Unlock()
	if !there {
		return false
	}
	_, err := readSetting(s.name(n.prefix), "forwarding")
	return err == nil
}

// Unplug removes the owner's link, which takes the kernel some 20 ms; none is no error.
func (n *Network) Unplug(owner string) error {
	n.mu.Lock()
	s, there := n.owners[owner]
	n.mu.Unlock()
	if !there {
		return nil
	}
	if err := removeLink(s.name(n.prefix)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.owners, owner)
	n.addresses.give(s)
	return nil
}

// ResolvConf is the text of a sandbox's /etc/resolv.conf.
func (n *Network) ResolvConf() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		servers, err := n.cfg.nameservers(resolvFiles())
		return resolvConf(servers), err
	}
	return resolvConf(n.now.dns), nil
}

// Close ends the watch. Links stay with their sandboxes, and what they need with them; without any link all is undone.
func (n *Network) Close() error {
	n.cancel()
	n.watch.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	if len(n.owners) == 0 && n.up {
		err = n.undo()
	}
	n.up = false
	n.addresses.close()
	return err
}

// start sets the host up, once.
func (n *Network) start() error {
	if n.up {
		return nil
	}
	if err := n.cfg.rangeIsFree(); err != nil {
		return err
	}
	if err := n.refresh(true); err != nil {
		return err
	}
	n.up = true
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.watch.Go(func() { n.keep(ctx) })
	return nil
}

// refresh brings table and forwarding in line with the host as it is now. Where nothing has changed the table is written only if force is set.
func (n *Network) refresh(force bool) error {
	servers, err := n.cfg.nameservers(resolvFiles())
	if err != nil {
		return err
	}
	reach := slices.Clone(servers)
	for _, p := range n.cfg.Allow {
		reach = append(reach, p.Addr())
	}
	names, mtu, err := uplinks(reach)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, isOurs)
	opened, err := openUplinks(n.cfg.State, names)
	if err != nil {
		return fmt.Errorf("note which devices are to forward: %w", err)
	}
	changed := !slices.Equal(opened, n.now.opened) || !slices.Equal(servers, n.now.dns)
	n.mtu, n.now.dns = mtu, servers
	if added := missing(opened, n.now.opened); len(added) > 0 {
		n.log.Info("forwarding is switched on for the sandboxes; packets of others are dropped there as before", "devices", strings.Join(added, " "))
	}
	n.now.opened = opened
	// The rules come first: nothing is forwarded that they do not judge.
	if changed || force {
		if err := n.now.write(); err != nil {
			return err
		}
	}
	for _, name := range opened {
		if err := writeSetting(name, "forwarding", "1"); err != nil && slices.Contains(names, name) {
			return fmt.Errorf("switch forwarding on for %s: %w", name, err)
		}
	}
	return nil
}

// undo leaves the host as it was; without the file nothing was changed. Where another node's links are, forwarding stays on for them.
func (n *Network) undo() error {
	if _, err := os.Stat(n.cfg.State); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all, err := links()
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(all, func(l netlink.Link) bool {
		_, own := slotOf(n.prefix, l.Attrs().Name)
		return isOurs(l.Attrs().Name) && !own
	})
	if !others {
		if err := closeUplinks(n.cfg.State); err != nil {
			return fmt.Errorf("switch forwarding off again: %w", err)
		}
	}
	n.now.opened = nil
	if err := n.now.remove(); err != nil {
		return err
	}
	return os.Remove(n.cfg.State)
}

func missing(list, from []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(from, s) })
}
