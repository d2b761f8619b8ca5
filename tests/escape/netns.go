//go:build linux

package escape

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
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
		bits := "/128"
		if a.Is4() {
			bits = "/32"
		}
		if err := device("lo", a.String()+bits); err != nil {
			t.Fatal(err)
		}
	}
}
