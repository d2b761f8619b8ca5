//go:build linux

package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const settingsDir = "/proc/sys/net/ipv4/conf"

func readSetting(device, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(settingsDir, device, name))
	return strings.TrimSpace(string(b)), err
}

// writeSetting writes only what differs: /proc/sys may be read-only where all is as it should be.
func writeSetting(device, name, value string) error {
	if now, err := readSetting(device, name); err == nil && now == value {
		return nil
	}
	return os.WriteFile(filepath.Join(settingsDir, device, name), []byte(value), 0o644)
}

// uplinks are the devices over which packets leave the host, and the smallest size of a packet on them.
func uplinks(reach []netip.Addr) (names []string, mtu int, err error) {
	all, err := routes()
	if err != nil {
		return nil, 0, fmt.Errorf("list the routes: %w", err)
	}
	var devices []int
	for _, r := range all {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			devices = append(devices, r.LinkIndex)
			for _, hop := range r.MultiPath {
				devices = append(devices, hop.LinkIndex)
			}
		}
	}
	for _, a := range reach {
		// An address that nothing leads to now may be reachable later.
		if found, err := netlink.RouteGet(a.AsSlice()); err == nil {
			for _, r := range found {
				devices = append(devices, r.LinkIndex)
			}
		}
	}
	slices.Sort(devices)
	for _, index := range slices.Compact(devices) {
		l, err := netlink.LinkByIndex(index)
		if err != nil || l.Attrs().Name == "lo" {
			continue
		}
		names = append(names, l.Attrs().Name)
		if m := l.Attrs().MTU; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	if mtu == 0 {
		mtu = 1500
	}
	return names, mtu, nil
}

// overlap finds a network of the host's own that the range would hide.
func overlap(space netip.Prefix) (string, error) {
	all, err := routes()
	if err != nil {
		return "", fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(ip, bits)
		if !ok || bits == 0 || !dst.Overlaps(space) || bits < space.Bits() && r.Scope != netlink.SCOPE_LINK {
			continue
		}
		l, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil || isOurs(l.Attrs().Name) {
			continue
		}
		return fmt.Sprintf("%s on %s", dst, l.Attrs().Name), nil
	}
	return "", nil
}

// isOurs reports whether the device is a link of any node's.
func isOurs(name string) bool {
	if len(name) != len(namePrefix)+tagLength+4 {
		return false
	}
	_, ok := slotOf(name[:len(name)-4], name)
	return ok && strings.HasPrefix(name, namePrefix)
}

// readOpened is the file's list of the devices on which forwarding was switched on.
func readOpened(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}

func writeOpened(file string, names []string) error {
	next := file + ".new"
	if err := os.WriteFile(next, []byte(strings.Join(names, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// openUplinks returns the devices on which forwarding is to be switched on, those of an earlier time included. The file says so before it happens.
func openUplinks(file string, names []string) (opened []string, err error) {
	if opened, err = readOpened(file); err != nil {
		return nil, err
	}
	var off []string
	for _, name := range names {
		now, err := readSetting(name, "forwarding")
		if err != nil {
			return nil, err
		}
		if now != "1" {
			off = append(off, name)
		}
	}
	opened = append(opened, off...)
	slices.Sort(opened)
	opened = slices.Compact(opened)
	if _, err := os.Stat(file); err == nil && len(off) == 0 {
		return opened, nil
	}
	return opened, writeOpened(file, opened)
}

// closeUplinks undoes what the file tells of.
func closeUplinks(file string) error {
	names, err := readOpened(file)
	if err != nil {
		return err
	}
	for _, name := range names {
		// A device that is gone took its setting with it.
		if err := writeSetting(name, "forwarding", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}
