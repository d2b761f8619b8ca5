package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	// lowestPort is the lowest port that FreeAddr gives, highestPort the highest there is.
	lowestPort, highestPort = 10_000, 65_535
	// outgoingRange says from which ports the kernel takes one for a connection that leaves.
	outgoingRange = "/proc/sys/net/ipv4/ip_local_port_range"
	// mostTries is how many ports are tried before FreeAddr gives up.
	mostTries = 100
)

// FreeAddr returns the preferred address of loopback if nobody listens there, else one where nobody does; preferred may be "". It stays free
// until its user listens there, also while others connect to this and that: none of the ports that the kernel gives to them is chosen.
func FreeAddr(preferred string) (string, error) {
	if preferred != "" && nobodyAt(preferred) {
		return preferred, nil
	}
	from, to := quietPorts(outgoingPorts())
	for range mostTries {
		if addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(from+rand.IntN(to-from))); nobodyAt(addr) {
			return addr, nil
		}
	}
	return "", errors.New("no address of loopback where nobody listens was found")
}

func nobodyAt(addr string) bool {
	l, err := net.Listen("tcp", addr)
	return err == nil && l.Close() == nil
}

// outgoingPorts returns the first and the last port that the kernel gives to connections which leave; 0, 0 where it does not say.
func outgoingPorts() (first, last int) {
	text, err := os.ReadFile(outgoingRange)
	if err != nil {
		return 0, 0
	}
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return 0, 0
	}
	return first, last
}

// quietPorts returns the larger range, its end not included, that lies below or above first to last; all ports where there is no room for one.
func quietPorts(first, last int) (from, to int) {
	below, above := first-lowestPort, highestPort-last
	switch {
	case first <= 0 || max(below, above) < mostTries:
		return lowestPort, highestPort + 1
	case below >= above:
		return lowestPort, first
	default:
		return last + 1, highestPort + 1
	}
}
