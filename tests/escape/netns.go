//go:build linux

package escape

import (
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// envOwnNetwork marks the process that has a network of its own.
const envOwnNetwork = "TATAMI_ESCAPE_NETWORK"

// OwnNetwork runs the calling test in another process, whose network namespace has nothing but a loopback device, and is true there: where
// it is false the test has run. Whatever address is tried is the namespace's own, so nothing leaves the machine.
func OwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envOwnNetwork) != "" {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.count=1"}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.timeout" || f.Name == "test.v" || !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envOwnNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	} else {
		t.Logf("in a network of its own:\n%s", out)
	}
	return false
}

// alone fails the test where there is a network besides the loopback device.
func alone(t *testing.T) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&(net.FlagLoopback|net.FlagUp) == net.FlagUp {
			t.Fatalf("the suite tries addresses of others and must run in a network of its own; here is %s", i.Name)
		}
	}
}

// own gives the loopback device the addresses.
func own(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		if err := addAddress(a); err != nil {
			t.Fatalf("address %s: %v", a, err)
		}
	}
}

const loopbackIndex = 1

// addAddress speaks to the kernel itself: the machine may have no program for it.
func addAddress(a netip.Addr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up := struct {
		unix.NlMsghdr
		unix.IfInfomsg
	}{
		unix.NlMsghdr{Len: unix.SizeofNlMsghdr + unix.SizeofIfInfomsg, Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK},
		unix.IfInfomsg{Index: loopbackIndex, Flags: unix.IFF_UP, Change: unix.IFF_UP},
	}
	if err := request(fd, unsafe.Slice((*byte)(unsafe.Pointer(&up)), unsafe.Sizeof(up))); err != nil {
		return err
	}
	family, ip := uint8(unix.AF_INET6), a.AsSlice()
	if a.Is4() {
		family = unix.AF_INET
	}
	size := unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg + unix.SizeofRtAttr + len(ip)
	head := struct {
		unix.NlMsghdr
		unix.IfAddrmsg
		unix.RtAttr
	}{
		unix.NlMsghdr{Len: uint32(size), Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE},
		unix.IfAddrmsg{Family: family, Prefixlen: uint8(a.BitLen()), Index: loopbackIndex, Flags: unix.IFA_F_NODAD},
		unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(ip)), Type: unix.IFA_LOCAL},
	}
	return request(fd, append(append([]byte{}, unsafe.Slice((*byte)(unsafe.Pointer(&head)), unsafe.Sizeof(head))...), ip...))
}

// request sends a message and reads whether the kernel did as it says.
func request(fd int, message []byte) error {
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("the kernel's answer is cut short")
	}
	if code := *(*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
