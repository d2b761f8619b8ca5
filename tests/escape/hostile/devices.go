//go:build linux

package main

import (
	"net/url"

	"golang.org/x/sys/unix"
)

// devices reach the machine's hardware: by nodes, ports and the sockets that go around the network's rules.
func devices() map[string]attempt {
	socket := func(family, kind, protocol int) attempt {
		return plain(func() error {
			fd, err := unix.Socket(family, kind, protocol)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	}
	node := func(mode uint32, major, minor uint32) attempt {
		return func(a url.Values) (string, error) {
			path := a.Get("path")
			if err := unix.Mknod(path, mode|0o666, int(unix.Mkdev(major, minor))); err != nil {
				return "", err
			}
			return path, unix.Unlink(path)
		}
	}
	return map[string]attempt{
		"mknod-memory": node(unix.S_IFCHR, 1, 1),
		"mknod-disk":   node(unix.S_IFBLK, 254, 0),
		"open-node": func(a url.Values) (string, error) {
			fd, err := unix.Open(a.Get("path"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			return "", unix.Close(fd)
		},
		"iopl":          plain(func() error { return iopl() }),
		"socket-raw":    socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"socket-raw6":   socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6),
		"socket-packet": socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300),
		"socket-alg":    socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		"socket-vsock":  socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"new-link":      plain(newLink),
	}
}

// newLink asks the kernel for a dummy network device.
func newLink() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The loopback device set up once more: a change for who may change, and without effect.
	request := make([]byte, 32)
	put := func(at int, v uint32) {
		for i := range 4 {
			request[at+i] = byte(v >> (8 * i))
		}
	}
	put(0, uint32(len(request)))
	put(4, unix.RTM_NEWLINK|(unix.NLM_F_REQUEST|unix.NLM_F_ACK)<<16)
	put(20, 1)
	put(24, unix.IFF_UP)
	put(28, unix.IFF_UP)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < 20 {
		return unix.EPROTO
	}
	code := int32(uint32(answer[16]) | uint32(answer[17])<<8 | uint32(answer[18])<<16 | uint32(answer[19])<<24)
	if code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
