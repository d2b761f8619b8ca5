package nomad

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"
)

const (
	// peersRetry is the first wait before Nomad is asked again after an error; it doubles up to peersRetryMost.
	peersRetry     = 200 * time.Millisecond
	peersRetryMost = 5 * time.Second
)

// Peers waits until a Nomad service has n addresses, and returns them as HOST:PORT in their order. Registrations come and go with allocations, so that there may
// be fewer for a while. Errors of Nomad's are waited out until ctx ends; then the last one is returned.
func Peers(ctx context.Context, c *api.Client, service string, n int, log *slog.Logger) ([]string, error) {
	index, wait := uint64(0), peersRetry
	said := -1
	for {
		all, meta, err := c.Services().Get(service, (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
		if err != nil {
			err = Explain(err, "looking for the service "+service)
			log.Warn("the other servers are not known yet; trying again", "service", service, "err", err)
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(wait):
			}
			index, wait = 0, min(2*wait, peersRetryMost)
			continue
		}
		peers := addresses(all)
		if len(peers) == n {
			return peers, nil
		}
		if len(peers) != said {
			log.Info("waiting until all servers are registered", "service", service, "registered", len(peers), "wanted", n)
		}
		index, wait, said = meta.LastIndex, peersRetry, len(peers)
	}
}

// addresses are where a service is, each once.
func addresses(all []*api.ServiceRegistration) []string {
	var out []string
	for _, r := range all {
		out = append(out, net.JoinHostPort(r.Address, strconv.Itoa(r.Port)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
