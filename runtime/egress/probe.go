//go:build linux

package egress

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Probe tries everything that a link takes in a network namespace that goes away with it, and says what this machine cannot do. It needs
// root, and changes nothing.
func Probe(cfg Config) error {
	cfg = cfg.withDefaults()
	if _, err := cfg.nameservers(resolvFiles()); err != nil {
		return err
	}
	if err := cfg.rangeIsFree(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go tryAll(cfg, done)
	return <-done
}

// rangeIsFree says what the machine has of the range already.
func (c Config) rangeIsFree() error {
	in, err := overlap(c.Range)
	if err != nil || in == "" {
		return err
	}
	return fault.New(fault.CodeUnavailable, "the addresses %s for functions with egress are in use: %s", c.Range, in).
		WithHint("name another private range with --egress-range")
}

// tryAll ends locked, so that its thread does, and with it the namespace.
func tryAll(cfg Config, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The process's first thread would not end.
		next := make(chan error, 1)
		go tryAll(cfg, next)
		done <- <-next
		runtime.UnlockOSThread()
		return
	}
	done <- func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: inner}); err != nil {
			return fmt.Errorf("the kernel makes no virtual Ethernet devices: %w", err)
		}
		r := rules{prefix: namePrefix + cfg.tag(), cfg: cfg, dns: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, opened: []string{"probe"}}
		if err := r.write(); err != nil {
			return fmt.Errorf("the kernel's nftables lack what is needed (filter, masquerade, reject, fib, ct): %w", err)
		}
		return writeSetting("probe", "forwarding", "1")
	}()
}
