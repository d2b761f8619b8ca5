package live

import (
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// known is what a gateway told last. Counters are followed gateway by gateway: one that starts anew, or does not answer for a while, does not make the sum
// of all jump.
type known struct {
	boot  string
	last  map[functions.Ref]counts
	track track
}

func (t Traffic) ref() functions.Ref { return functions.Ref{Namespace: t.Namespace, Name: t.Function} }

// gateways finds what every gateway did since the last picture, adds it to the functions, and shows it with the servers.
func (l *Live) gateways(p *picture, each []Gateway, now time.Time) {
	for _, g := range each {
		if !g.Told {
			p.Totals.Without = append(p.Totals.Without, g.Name)
			continue
		}
		k := l.known[g.Peer]
		// What it did before anybody looked is not news; what it did since it started anew is.
		fresh := k == nil
		if fresh {
			k = &known{}
			l.known[g.Peer] = k
		} else if k.boot != g.Boot {
			k.last = nil
		}
		var sum counts
		does := GatewayFigures{}
		last := make(map[functions.Ref]counts, len(g.Functions))
		for _, t := range g.Functions {
			ref, c := t.ref(), counts{t.Requests, t.Errors, t.ColdStarts}
			last[ref] = c
			does.InFlight += t.InFlight
			does.Waiting += t.Waiting
			if fresh {
				continue
			}
			d := c.since(k.last[ref])
			sum = sum.add(d)
			more := p.more[ref]
			more.new = more.new.add(d)
		}
		k.boot, k.last = g.Boot, last
		k.track.add(now, sum, 0, 0)
		does.RPS = k.track.rps()
		if i := slices.IndexFunc(p.Servers, func(s Server) bool { return s.Peer == g.Peer }); i >= 0 {
			p.Servers[i].Gateway = &does
		}
	}
}
