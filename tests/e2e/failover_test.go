//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

var (
	failoverSeed  = flag.Uint64("failover.seed", 1, "which workers and pairs of machines TestFailover harms")
	failoverSteps = flag.String("failover.steps", "worker,scheduler", "what TestFailover does, in this order: worker, scheduler, stream and gateway are kills, "+
		"parting and pairs part one pair of machines of each kind and all pairs, restarts restarts all six")
)

// theOutside is the number of the machine that has internetAddr.
const theOutside = 9

// harm is something that was done to the cluster.
type harm struct {
	what string
	// gateway is the server that was away, -1 where none was; worker says that requests under way on a worker were lost.
	gateway int
	worker  bool
	// drained says that what was under way on the gateway was answered.
	drained  bool
	from, to time.Time
}

// call is a synchronous request that failed.
type call struct {
	gateway      int
	began, ended time.Time
	what         string
}

// failover is a cluster under load, and what is done to it.
type failover struct {
	*cluster
	t     *testing.T
	store *effects
	chaos *chaos

	stop chan struct{}
	work sync.WaitGroup

	mu     sync.Mutex
	harms  []harm
	calls  int
	failed []call
	// slowest is the longest that a call through a gateway took since it was asked last.
	slowest  [3]time.Duration
	accepted []handed
	// taken are the ends of the handings over, by their beginnings.
	taken []call
}

// Three servers and three workers are restarted, killed and parted under load. Nothing that was accepted is lost, a function that makes its effect once of
// each invocation makes it once, and no call fails but those that were under way on what died.
func TestFailover(t *testing.T) {
	f := &failover{cluster: newCluster(t, 3, "--egress-dns", internetAddr), t: t, stop: make(chan struct{})}
	f.outside()
	f.chaos = &chaos{t: t, s: f.servers[0]}
	fl := &fleet{Server: f.servers[0], t: t, workers: f.workers}
	eventually(t, 60*time.Second, "every worker shows", func() bool { return len(fl.nodes()) == 3 })
	f.servers[0].Deploy("warm", "probe", "cpu: 50m\nmemory: 32Mi\nephemeral: 16Mi\nconcurrency: 20\nscale: {min: 3, max: 3, keepAlive: 10m}\nplacement: {spread: node}\n")
	f.servers[1].Deploy("once", "probe", "egress: internet\ncpu: 50m\nmemory: 32Mi\nephemeral: 16Mi\nscale: {min: 1, max: 3, keepAlive: 10m}\nqueue: {retries: 10}\n")
	f.servers[2].Deploy("cold", "probe", "cpu: 50m\nmemory: 32Mi\nephemeral: 16Mi\nscale: {max: 1, keepAlive: 1s}\n")
	eventually(t, 60*time.Second, "all instances are ready", func() bool { return total(fl.on("warm")) == 3 && total(fl.on("once")) > 0 })
	f.load()
	f.goOn()
	rng := rand.New(rand.NewPCG(*failoverSeed, 0))
	for step := range strings.SplitSeq(*failoverSteps, ",") {
		f.step(step, rng)
	}
	f.end()
}

func (f *failover) step(what string, rng *rand.Rand) {
	f.t.Helper()
	switch what {
	case "worker":
		f.killWorker(rng.IntN(len(f.workers)))
	case "scheduler":
		f.killServer("the active scheduler", f.leader())
	case "stream":
		f.killServer("the leader of the queue's stream", f.leads(bus.StreamInvocations))
	case "gateway":
		f.killServer("a gateway", f.bystander())
	case "parting":
		a := rng.IntN(3)
		f.part(a, (a+1+rng.IntN(2))%3)
		f.part(rng.IntN(3), 3+rng.IntN(3))
	case "pairs":
		for a := range f.servers {
			for b := a + 1; b < len(f.nets); b++ {
				f.part(a, b)
			}
		}
	case "restarts":
		for i := range f.servers {
			f.restartServer(i)
		}
		for i := range f.workers {
			f.restartWorker(i)
		}
	default:
		f.t.Fatalf("-failover.steps: %q is no step", what)
	}
}

// outside makes a machine that keeps the effects of functions, and leads the workers to it.
func (f *failover) outside() {
	f.t.Helper()
	m := f.sw.Machine(theOutside)
	m.Must(func() error { return device("lo", internetAddr+"/32") })
	f.store = keepEffects(f.t, &world{outside: m})
	for _, n := range f.nets[3:] {
		n.Must(func() error {
			return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(harness.MachineAddr(theOutside))})
		})
	}
}

// load calls and hands over through every gateway until end.
func (f *failover) load() {
	for g := range f.servers {
		for range 2 {
			f.work.Go(func() {
				for f.going() {
					f.callOnce(g)
				}
			})
		}
		f.work.Go(func() {
			for n := 0; f.going(); n++ {
				f.handOver(g, fmt.Sprintf("g%d-%d", g, n))
			}
		})
	}
}

// going waits for the pace of the load.
func (f *failover) going() bool {
	select {
	case <-f.stop:
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

func (f *failover) callOnce(g int) {
	c := call{gateway: g, began: time.Now()}
	resp, body, err := f.servers[g].TryDo("GET", "/fn/warm/sleep?ms=20", "", nil)
	c.ended = time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if err != nil || resp.StatusCode != http.StatusOK {
		c.what = fmt.Sprint(err, resp, body)
		f.failed = append(f.failed, c)
		return
	}
	f.slowest[g] = max(f.slowest[g], c.ended.Sub(c.began))
}

// handOver hands an invocation over at a gateway, and at the next ones where that fails.
func (f *failover) handOver(g int, key string) {
	path := "/async/once/effect?how=once&store=" + effectsAt
	for try := 0; f.t.Context().Err() == nil; try++ {
		at := (g + try) % len(f.servers)
		c := call{gateway: at, began: time.Now()}
		resp, body, err := f.servers[at].TryDo("POST", path, key, http.Header{"Idempotency-Key": {key}})
		c.ended = time.Now()
		switch {
		case err == nil && resp.StatusCode == http.StatusAccepted:
			f.mu.Lock()
			f.accepted = append(f.accepted, handed{id: resp.Header.Get("Tatami-Invocation-Id"), key: key, fn: "once", path: path})
			f.taken = append(f.taken, c)
			f.mu.Unlock()
			return
		case err == nil && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
			f.t.Errorf("%s: %s %s", path, resp.Status, body)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// goOn waits until calls through every gateway, and handings over, have succeeded since now.
func (f *failover) goOn() {
	f.t.Helper()
	since := time.Now()
	eventually(f.t, 60*time.Second, "something is accepted", func() bool { return !f.acceptedAfter(since).IsZero() })
	for g, s := range f.servers {
		eventually(f.t, 60*time.Second, fmt.Sprintf("server %d calls", g), func() bool {
			resp, _, err := s.TryDo("GET", "/fn/warm/pid", "", nil)
			return err == nil && resp.StatusCode == http.StatusOK
		})
	}
}

// acceptedAfter is when the first invocation was accepted whose handing over began after a time; zero where none was.
func (f *failover) acceptedAfter(since time.Time) (first time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.taken {
		if c.began.After(since) && (first.IsZero() || c.ended.Before(first)) {
			first = c.ended
		}
	}
	return first
}

// begin notes that something is about to be done, and returns its end.
func (f *failover) begin(h harm) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.from = time.Now()
	i := len(f.harms)
	f.harms = append(f.harms, h)
	f.slowest = [3]time.Duration{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.harms[i].to = time.Now()
		f.t.Logf("%s: over after %s; the slowest calls meanwhile, by gateway: %s", h.what, time.Since(h.from).Round(time.Millisecond), f.slowest)
	}
}

// whole waits until there are as many instances as are wanted, and no more.
func (f *failover) whole(through *harness.Server) {
	f.t.Helper()
	fl := &fleet{Server: through, t: f.t}
	eventually(f.t, 60*time.Second, "every instance is ready", func() bool { return total(fl.on("warm")) == 3 })
}

func (f *failover) killWorker(i int) {
	f.t.Helper()
	fl := &fleet{Server: f.servers[0], t: f.t}
	w := f.workers[i]
	end := f.begin(harm{what: "a worker is killed", gateway: -1, worker: true})
	w.Kill()
	killed := time.Now()
	eventually(f.t, 60*time.Second, "what ran on the worker is replaced", func() bool {
		on := fl.on("warm")
		return on[w.Name] == 0 && total(on) >= 3
	})
	f.t.Logf("a worker is killed: what ran on it is replaced after %s", time.Since(killed).Round(10*time.Millisecond))
	w.Launch()
	f.goOn()
	f.whole(f.servers[0])
	end()
}

// killServer kills a server, and starts it again once the others do its work.
func (f *failover) killServer(what string, victim int) {
	f.t.Helper()
	other := f.servers[(victim+1)%3]
	fl := &fleet{Server: other, t: f.t}
	eventually(f.t, 60*time.Second, "nothing of the function is there", func() bool { return len(instances(f.t, fl.Server, "cold")) == 0 })
	end := f.begin(harm{what: what + " is killed", gateway: victim})
	f.servers[victim].Kill()
	killed := time.Now()
	resp, body, err := other.TryDo("GET", "/fn/cold/pid", "", nil)
	f.t.Logf("%s is killed: a cold call is answered after %s", what, time.Since(killed).Round(10*time.Millisecond))
	if err != nil || resp.StatusCode != http.StatusOK {
		f.t.Errorf("%s is killed: a cold call through another gateway failed: %v %v %s", what, err, resp, body)
	}
	eventually(f.t, 60*time.Second, "something is accepted", func() bool { return !f.acceptedAfter(killed).IsZero() })
	f.t.Logf("%s is killed: the first invocation is accepted after %s", what, f.acceptedAfter(killed).Sub(killed).Round(10*time.Millisecond))
	f.servers[victim].Launch()
	f.goOn()
	f.whole(other)
	end()
}

var streams = regexp.MustCompile(`time=(\S+) .*this server leads a stream" stream=(\S+)`)

// leads is the server that began last to lead a stream.
func (c *cluster) leads(stream string) int {
	c.t.Helper()
	at, last := -1, ""
	for i, s := range c.servers {
		for _, m := range streams.FindAllStringSubmatch(s.Said(), -1) {
			if m[2] == stream && m[1] > last {
				at, last = i, m[1]
			}
		}
	}
	if at < 0 {
		c.t.Fatalf("no server says that it leads %s", stream)
	}
	return at
}

// restartServer ends a server as a service manager does, and starts it again.
func (f *failover) restartServer(i int) {
	f.t.Helper()
	led := i == f.leader()
	end := f.begin(harm{what: fmt.Sprintf("server %d is restarted", i), gateway: i, drained: true})
	asked := time.Now()
	f.servers[i].Terminate()
	eventually(f.t, 60*time.Second, "something is accepted", func() bool { return !f.acceptedAfter(asked).IsZero() })
	f.t.Logf("server %d is restarted, which leads: %t; the first invocation is accepted after %s", i, led, f.acceptedAfter(asked).Sub(asked).Round(10*time.Millisecond))
	f.servers[i].Launch()
	f.goOn()
	end()
}

// restartWorker does that with a worker. No call may fail.
func (f *failover) restartWorker(i int) {
	f.t.Helper()
	end := f.begin(harm{what: fmt.Sprintf("worker %d is restarted", i), gateway: -1})
	f.workers[i].Terminate()
	f.workers[i].Launch()
	f.goOn()
	f.whole(f.servers[0])
	end()
}

// bystander is a server that leads neither the cluster nor the queue's stream, where there is one.
func (f *failover) bystander() int {
	for i := range f.servers {
		if i != f.leader() && i != f.leads(bus.StreamInvocations) {
			return i
		}
	}
	return (f.leader() + 1) % 3
}

// part loses what two machines send each other, for as long as it takes that to be noticed.
func (f *failover) part(a, b int) {
	f.t.Helper()
	what := fmt.Sprintf("machines %d and %d are parted", a+1, b+1)
	end := f.begin(harm{what: what, gateway: -1, worker: b >= 3})
	f.sw.Part(f.nets[a], a+1, f.nets[b], b+1)
	parted := time.Now()
	time.Sleep(partedFor)
	f.sw.Join(f.nets[a], a+1, f.nets[b], b+1)
	f.t.Logf("%s: the first invocation is accepted after %s", what, f.acceptedAfter(parted).Sub(parted).Round(10*time.Millisecond))
	f.goOn()
	f.whole(f.servers[2])
	end()
}

// partedFor is longer than a server is silent before another one leads.
const partedFor = 6 * time.Second

// end stops the load and judges.
func (f *failover) end() {
	f.t.Helper()
	close(f.stop)
	f.work.Wait()
	for i, st := range f.chaos.ends(f.accepted) {
		h := f.accepted[i]
		if st.State != functions.StateSucceeded {
			f.t.Errorf("%s: %+v", h.id, st)
		}
		if n, made := f.store.of(h.id); n != 1 {
			f.t.Errorf("%s has %d effects: %+v", h.id, n, made)
		}
	}
	for _, c := range f.failed {
		if !f.excused(c) {
			f.t.Errorf("a call through server %d from %s to %s failed: %s", c.gateway, c.began.Format(time.StampMilli), c.ended.Format(time.StampMilli), c.what)
		}
	}
	f.t.Logf("%d calls, %d of them failed on what died; %d invocations, all ended with one effect", f.calls, len(f.failed), len(f.accepted))
}

// excused reports whether a call was under way on what died, or asked a server that was dead.
func (f *failover) excused(c call) bool {
	for _, h := range f.harms {
		if h.gateway == c.gateway && c.ended.After(h.from) && c.began.Before(h.to) && (!h.drained || c.began.After(h.from)) || h.worker && c.began.Before(h.from) && c.ended.After(h.from) {
			return true
		}
	}
	return false
}
