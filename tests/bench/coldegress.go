package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readyPool is a pool of which a part has links ready; one of a single sandbox has none.
const readyPool = "32"

// coldEgress measures starts from zero of a function with egress that finds its link ready, by turns with one whose link is made at the start and with
// one without egress. All of it is in a network namespace of its own, with a way out that leads nowhere.
func coldEgress(ctx context.Context, binary string) (figures []figure, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with the goroutine: no other one ever finds itself in the namespace.
		runtime.LockOSThread()
		if err = ownNetwork(); err == nil {
			figures, err = coldEgressHere(ctx, binary)
		}
	}()
	<-done
	return figures, err
}

// ownNetwork brings the thread into a network namespace that has a default route.
func ownNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0"}); err != nil {
		return err
	}
	for _, name := range []string{"lo", "up0", "down0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name != "up0" {
			continue
		}
		addr, err := netlink.ParseAddr("203.0.113.2/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(203, 0, 113, 1)})
}

func coldEgressHere(ctx context.Context, binary string) (figures []figure, err error) {
	servers := map[string]*server{}
	for name, pool := range map[string]string{"ready": readyPool, "made": "1"} {
		s, err := startServer(ctx, binary, "--sandbox-pool", pool, "--egress-dns", "198.51.100.1")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		if err := s.deploy(ctx, "out", "hello", "scale: {keepAlive: 1s}\negress: internet\n"); err != nil {
			return nil, err
		}
		servers[name] = s
	}
	if err := servers["ready"].deploy(ctx, "none", "hello", "scale: {keepAlive: 1s}\n"); err != nil {
		return nil, err
	}
	ways := []struct {
		name, function string
		server         *server
	}{{"ready", "out", servers["ready"]}, {"made", "out", servers["made"]}, {"none", "none", servers["ready"]}}
	took, phases := map[string][]float64{}, map[string]map[string][]float64{}
	for i := range rounds * coldPerRound {
		for _, w := range ways {
			sample, timing, err := coldSample(ctx, w.server, w.function)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				// The first start has the part of the pool with links filled.
				phases[w.name] = map[string][]float64{}
				time.Sleep(time.Second)
				continue
			}
			if made := strings.Contains(timing, "why;desc="); made != (w.name == "made") {
				return nil, fmt.Errorf("a sample of %q is of another kind: %s", w.name, timing)
			}
			took[w.name] = append(took[w.name], sample)
			addPhases(phases[w.name], timing)
		}
	}
	for _, w := range ways {
		slices.Sort(took[w.name])
		printPhases("egress "+w.name, phases[w.name])
	}
	ready := took["ready"]
	for _, name := range []string{"none", "made"} {
		figures = append(figures,
			beside("cold", "p50_ms_egress", "ms", quantile(ready, 0.5), name, quantile(took[name], 0.5), len(ready)),
			beside("cold", "create_ms_egress", "ms", median(phases["ready"]["create"]), name, median(phases[name]["create"]), len(ready)))
	}
	return figures, nil
}
