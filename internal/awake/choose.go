package awake

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Auto is the word that leaves the choice of a policy to Choose.
const Auto = "auto"

// mostProcessors is how many a machine may have for calls to keep them awake by themselves: the wish is for all of them, whatever a call needs.
const mostProcessors = 8

// The files that tell of a machine.
const (
	cpuinfoFile  = "proc/cpuinfo"
	onlineFile   = "sys/devices/system/cpu/online"
	driverFile   = "sys/devices/system/cpu/cpuidle/current_driver"
	governorFile = "sys/devices/system/cpu/cpuidle/current_governor"
	pollingFile  = "sys/module/haltpoll/parameters/guest_halt_poll_ns"
)

// Machine is what is known of a machine's processors.
type Machine struct {
	// Processors is how many are online, 0 where that is not known.
	Processors int
	// Virtual says that they are those of a virtual machine.
	Virtual bool
	// Driver and Governor are what the kernel has for idle processors; "" or "none" where it has nothing.
	Driver, Governor string
	// Polling is for how long, in nanoseconds, a processor that has nothing to do looks for work before it sleeps, as the kernel was told.
	Polling int64
}

// Look reads what is known of a machine from the root of its files.
func Look(root fs.FS) Machine {
	m := Machine{
		Processors: countList(read(root, onlineFile)),
		Driver:     read(root, driverFile),
		Governor:   read(root, governorFile),
		Virtual:    virtual(root),
	}
	if ns, err := strconv.ParseInt(read(root, pollingFile), 10, 64); err == nil {
		m.Polling = ns
	}
	return m
}

// virtual reports whether the processors are a hypervisor's: those of x86 say so themselves, for others the firmware does, or Xen.
func virtual(root fs.FS) bool {
	for line := range strings.SplitSeq(read(root, cpuinfoFile), "\n") {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return strings.Contains(flags+" ", " hypervisor ")
		}
	}
	for _, name := range []string{"proc/device-tree/hypervisor/compatible", "sys/hypervisor/type"} {
		if read(root, name) != "" {
			return true
		}
	}
	return false
}

func read(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// countList counts what a list such as 0-3,6 names; 0 for what is no list.
func countList(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return 0
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil || b < a {
				return 0
			}
		}
		n += b - a + 1
	}
	return n
}

// Polls reports whether the kernel has a processor look for work before it sleeps.
func (m Machine) Polls() bool {
	return m.Driver == "haltpoll" && m.Governor == "haltpoll" && m.Polling > 0
}

// PollingOff reports whether the kernel would do that, and was told not to.
func (m Machine) PollingOff() bool {
	return m.Driver == "haltpoll" && m.Governor == "haltpoll" && m.Polling == 0
}

// Heeds reports whether the kernel goes by a wish that processors do not sleep.
func (m Machine) Heeds() bool { return m.Driver != "" && m.Driver != "none" }

// Choose returns the policy that a word of the flag --stay-awake stands for on the machine, and why it is that one.
func Choose(word string, m Machine) (Policy, string, error) {
	for _, p := range []Policy{Never, Starts, Calls} {
		if word == p.String() {
			return p, "as --stay-awake says", nil
		}
	}
	switch {
	case word != Auto:
		return Never, "", fmt.Errorf("%.40q is none of auto, calls, starts and never", word)
	case !m.Heeds():
		return Starts, "the kernel has no driver for idle processors that would keep them awake", nil
	case !m.Virtual:
		return Starts, "this is no virtual machine: processors wake up soon", nil
	case m.Polls():
		return Starts, fmt.Sprintf("the kernel looks for work for %d us before it lets one sleep", m.Polling/1000), nil
	case m.Processors == 0:
		return Starts, "the kernel does not tell how many processors would all stay awake", nil
	case m.Processors > mostProcessors:
		return Starts, fmt.Sprintf("the machine has more than %d processors, which would all stay awake", mostProcessors), nil
	}
	return Calls, "in this virtual machine a processor that sleeps is slow to wake up", nil
}
