//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The kinds of requests.
const (
	// kindCall is a synchronous call, kindHand an invocation that is handed over, kindRead a question for one that was.
	kindCall, kindHand, kindRead = "call", "handing over", "question"
)

// try is a request at one gateway.
type try struct {
	kind         string
	gateway      int
	began, ended time.Time
	// what is why it failed.
	what string
}

func (a try) String() string {
	return fmt.Sprintf("a %s at server %d from %s to %s: %s", a.kind, a.gateway, a.began.Format(time.StampMilli), a.ended.Format(time.StampMilli), a.what)
}

// harm is something that was done to the cluster.
type harm struct {
	what string
	// gateway is the server that dies, or is cut off from a worker; -1 where none is. Anywhere says that it is a worker's death, which every gateway sees.
	gateway  int
	anywhere bool
	// gentle says that no request may fail by it.
	gentle bool
	// from is when it began, done when it was done, to when all was well again.
	from, done, to time.Time
}

// excuses reports whether a request may fail by the harm: a call that was under way on what died, or a request that waits for whoever leads.
func (h harm) excuses(a try) bool {
	switch {
	case h.gentle:
		return false
	case a.kind == kindCall:
		return (h.anywhere || h.gateway == a.gateway) && a.began.Before(h.done) && a.ended.After(h.from)
	}
	return a.ended.After(h.from) && a.began.Before(h.to)
}

// pressure is the load on a cluster: calls, handings over and questions at every gateway. Whoever is behind it goes to the next gateway where one takes
// no connection, as load balancers do, and does not repeat anything else, except for handings over with a key.
type pressure struct {
	t        *testing.T
	gateways []*harness.Server
	stop     chan struct{}
	work     sync.WaitGroup

	mu     sync.Mutex
	harms  []harm
	counts map[string]int
	// away counts the requests that went to the next gateway.
	away   int
	failed []try
	// slowest is the longest that a call through a gateway took since it was asked last.
	slowest  [3]time.Duration
	accepted []handed
	// taken are the handings over that succeeded.
	taken []try
}

// start loads every gateway until end.
func (p *pressure) start() {
	p.counts = map[string]int{}
	for g := range p.gateways {
		p.each(func(int) { p.call(g, "GET", "/fn/warm/sleep?ms=20", "") })
		// What nobody repeats by itself: neither this program's client nor a load balancer.
		p.each(func(int) { p.call(g, "POST", "/fn/warm/echo", "what is said") })
		p.each(func(n int) { p.handOver(g, fmt.Sprintf("g%d-%d", g, n)) })
		p.each(func(int) { p.ask(g) })
	}
}

// each runs f with 0, 1, and so on, at the pace of the load.
func (p *pressure) each(f func(n int)) {
	p.work.Go(func() {
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for n := 0; ; n++ {
			select {
			case <-p.stop:
				return
			case <-pace.C:
				f(n)
			}
		}
	})
}

// do makes a request at a gateway, or at the next one that takes connections.
func (p *pressure) do(kind string, g int, method, path, body string, header http.Header) (try, *http.Response, error) {
	for n := 0; ; n++ {
		a := try{kind: kind, gateway: (g + n) % len(p.gateways), began: time.Now()}
		resp, got, err := p.gateways[a.gateway].TryDo(method, path, body, header)
		a.ended = time.Now()
		switch {
		case err != nil:
			a.what = err.Error()
		case resp.StatusCode >= http.StatusBadRequest:
			a.what = fmt.Sprint(resp.Status, " ", resp.Header, " ", got)
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && n+1 < len(p.gateways) {
			p.mu.Lock()
			p.away++
			p.mu.Unlock()
			continue
		}
		p.note(a)
		return a, resp, err
	}
}

func (p *pressure) note(a try) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[a.kind]++
	if a.what != "" {
		p.failed = append(p.failed, a)
	} else if a.kind == kindCall {
		p.slowest[a.gateway] = max(p.slowest[a.gateway], a.ended.Sub(a.began))
	}
}

func (p *pressure) call(g int, method, path, body string) {
	a, resp, err := p.do(kindCall, g, method, path, body, nil)
	if err == nil && resp.StatusCode != http.StatusOK && a.what == "" {
		p.t.Errorf("%s %s: %s", method, path, resp.Status)
	}
}

// handOver hands an invocation over until it is accepted.
func (p *pressure) handOver(g int, key string) {
	const path = "/async/once/effect?how=once&store=" + effectsAt
	for n := 0; p.t.Context().Err() == nil; n++ {
		a, resp, err := p.do(kindHand, g+n, "POST", path, key, http.Header{"Idempotency-Key": {key}})
		switch {
		case err == nil && resp.StatusCode == http.StatusAccepted:
			p.mu.Lock()
			p.accepted = append(p.accepted, handed{id: resp.Header.Get("Tatami-Invocation-Id"), key: key, fn: "once", path: path})
			p.taken = append(p.taken, a)
			p.mu.Unlock()
			return
		case err == nil && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
			p.t.Errorf("%s: %s", path, a.what)
			return
		}
		select {
		case <-p.stop:
			// Whether it was accepted is not known.
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask asks for the invocation that was accepted last, and waits for its end.
func (p *pressure) ask(g int) {
	p.mu.Lock()
	var id string
	if n := len(p.accepted); n > 0 {
		id = p.accepted[n-1].id
	}
	p.mu.Unlock()
	if id != "" {
		_, _, _ = p.do(kindRead, g, "GET", "/invocations/"+id+"?wait=2s", "", nil)
	}
}

// acceptedAfter is when the first invocation was accepted whose handing over began after a time; zero where none was.
func (p *pressure) acceptedAfter(since time.Time) (first time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.taken {
		if a.began.After(since) && (first.IsZero() || a.ended.Before(first)) {
			first = a.ended
		}
	}
	return first
}

// begin notes that something is about to be done; done is to be called when it is, end when all is well again.
func (p *pressure) begin(h harm) (done, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.from = time.Now()
	i := len(p.harms)
	p.harms = append(p.harms, h)
	p.slowest = [3]time.Duration{}
	note := func(f func(h *harm, now time.Time)) func() {
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			f(&p.harms[i], time.Now())
		}
	}
	return note(func(h *harm, now time.Time) { h.done = now }), note(func(h *harm, now time.Time) {
		h.to = now
		p.t.Logf("%s: over after %s; the slowest calls meanwhile, by gateway: %s", h.what, now.Sub(h.from).Round(time.Millisecond), p.slowest)
	})
}

// judge ends the load and tells of every request that failed.
func (p *pressure) judge(store *effects) {
	p.t.Helper()
	close(p.stop)
	p.work.Wait()
	excused := map[string]int{}
	for _, a := range p.failed {
		if by := p.excuse(a); by == "" {
			p.t.Errorf("%s", a)
		} else {
			excused[a.kind]++
			p.t.Logf("%s, by %s", a, by)
		}
	}
	c := &chaos{t: p.t, s: p.gateways[0]}
	ids := map[string]string{}
	for i, st := range c.ends(p.accepted) {
		h := p.accepted[i]
		if st.State != functions.StateSucceeded {
			p.t.Errorf("%s: %+v", h.id, st)
		}
		if n, made := store.of(h.id); n != 1 {
			p.t.Errorf("%s has %d effects: %+v", h.id, n, made)
		}
		ids[h.key] = h.id
	}
	for key, n := range store.keys() {
		if id := ids[key]; id != "" && n != 1 {
			p.t.Errorf("%d invocations were made of %s, which was accepted as %s", n, key, id)
		}
	}
	p.t.Logf("requests: %v, of which failed and may: %v; %d went to the next gateway; %d invocations, all ended with one effect", p.counts, excused, p.away, len(p.accepted))
}

// excuse names the harm by which a request may have failed; "" where there is none.
func (p *pressure) excuse(a try) string {
	for _, h := range p.harms {
		if h.excuses(a) {
			return h.what
		}
	}
	return ""
}
