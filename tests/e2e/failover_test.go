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
		"parting, servers and pairs part one pair of machines of each kind, all pairs of servers and all pairs, fence parts a worker from all servers, restarts restarts all six")
	failoverParted = flag.Duration("failover.parted", 6*time.Second, "how long TestFailover parts two machines: a server that is silent for 3 s is replaced, "+
		"and an election of those that keep the streams begins after 4 to 9 s")
)

// theOutside is the number of the machine that has internetAddr.
const theOutside = 9

// failover is a cluster under load, and what is done to it.
type failover struct {
	*cluster
	*pressure
	t     *testing.T
	store *effects
}

// Three servers and three workers are restarted, killed and parted under load. Nothing that was accepted is lost, a function that makes its effect once of
// each invocation makes it once, and no call fails but those that were under way on what died. By a restart no request fails at all.
func TestFailover(t *testing.T) {
	c := newCluster(t, 3, "--egress-dns", internetAddr)
	f := &failover{cluster: c, pressure: &pressure{t: t, gateways: c.servers, stop: make(chan struct{})}, t: t}
	f.outside()
	fl := &fleet{Server: c.servers[0], t: t, workers: c.workers}
	eventually(t, 60*time.Second, "every worker shows", func() bool { return len(fl.nodes()) == 3 })
	const each = "cpu: 50m\nmemory: 32Mi\nephemeral: 16Mi\n"
	c.servers[0].Deploy("warm", "probe", each+"concurrency: 20\nscale: {min: 3, max: 3, keepAlive: 10m}\nplacement: {spread: node}\n")
	c.servers[1].Deploy("once", "probe", each+"egress: internet\nscale: {min: 1, max: 3, keepAlive: 10m}\nqueue: {retries: 10}\n")
	c.servers[2].Deploy("cold", "probe", each+"scale: {max: 1, keepAlive: 1s}\n")
	eventually(t, 60*time.Second, "all instances are ready", func() bool { return total(fl.on("warm")) == 3 && total(fl.on("once")) > 0 })
	f.start()
	f.goOn()
	rng := rand.New(rand.NewPCG(*failoverSeed, 0))
	for step := range strings.SplitSeq(*failoverSteps, ",") {
		f.step(step, rng)
	}
	f.judge(f.store)
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
		for a := range f.nets {
			for b := a + 1; b < len(f.nets); b++ {
				f.part(a, b)
			}
		}
	case "servers":
		f.part(0, 1)
		f.part(0, 2)
		f.part(1, 2)
	case "fence":
		f.fence(rng.IntN(len(f.workers)))
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

// tookUntil tells how long after a time the first invocation was accepted.
func (f *failover) tookUntil(what string, since time.Time) {
	f.t.Helper()
	if first := f.acceptedAfter(since); first.IsZero() {
		f.t.Logf("%s: no invocation is accepted for %s", what, time.Since(since).Round(10*time.Millisecond))
	} else {
		f.t.Logf("%s: the first invocation is accepted after %s", what, first.Sub(since).Round(10*time.Millisecond))
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
	var on map[string]int
	eventually(f.t, 60*time.Second, "a worker runs something", func() bool {
		on = fl.on("warm")
		return total(on) > 0
	})
	// After a restart a worker may run nothing.
	for on[f.workers[i].Name] == 0 {
		i = (i + 1) % len(f.workers)
	}
	w := f.workers[i]
	done, end := f.begin(harm{what: "a worker is killed", gateway: -1, anywhere: true})
	w.Kill()
	done()
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
	what += " is killed"
	other := f.servers[(victim+1)%3]
	f.awaitCold((victim + 1) % 3)
	done, end := f.begin(harm{what: what, gateway: victim})
	f.servers[victim].Kill()
	done()
	killed := time.Now()
	f.callCold(what, (victim+1)%3, killed)
	eventually(f.t, 60*time.Second, "something is accepted", func() bool { return !f.acceptedAfter(killed).IsZero() })
	f.tookUntil(what, killed)
	launched := time.Now()
	f.servers[victim].Launch()
	f.t.Logf("%s: started again it serves after %s", what, time.Since(launched).Round(10*time.Millisecond))
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

// restartServer ends a server as a service manager does, and starts it again. No request may fail.
func (f *failover) restartServer(i int) {
	f.t.Helper()
	what := fmt.Sprintf("server %d is restarted, which leads: %t", i, i == f.leader())
	_, end := f.begin(harm{what: what, gateway: i, gentle: true})
	asked := time.Now()
	f.servers[i].Terminate()
	f.t.Logf("%s: it has ended after %s", what, time.Since(asked).Round(10*time.Millisecond))
	eventually(f.t, 60*time.Second, "something is accepted", func() bool { return !f.acceptedAfter(asked).IsZero() })
	f.tookUntil(what, asked)
	f.servers[i].Launch()
	f.goOn()
	end()
}

// restartWorker does that with a worker.
func (f *failover) restartWorker(i int) {
	f.t.Helper()
	_, end := f.begin(harm{what: fmt.Sprintf("worker %d is restarted", i), gateway: -1, gentle: true})
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

// awaitCold waits until a call has to wait for an instance to be started, as a server knows it.
func (f *failover) awaitCold(g int) {
	f.t.Helper()
	eventually(f.t, 60*time.Second, "nothing of the function is there", func() bool { return len(instances(f.t, f.servers[g], "cold")) == 0 })
}

// callCold makes a call for which an instance has to be started.
func (f *failover) callCold(what string, g int, since time.Time) {
	resp, body, err := f.servers[g].TryDo("GET", "/fn/cold/pid", "", nil)
	f.t.Logf("%s: a cold call at server %d is answered after %s", what, g, time.Since(since).Round(10*time.Millisecond))
	if err != nil || resp.StatusCode != http.StatusOK {
		f.t.Errorf("%s: a cold call at server %d failed: %v %v %s", what, g, err, resp, body)
	}
}

// part loses what two machines send each other, for a while.
func (f *failover) part(a, b int) {
	f.t.Helper()
	h := harm{what: fmt.Sprintf("machines %d and %d are parted", a+1, b+1), gateway: -1}
	if a < 3 && b >= 3 {
		h.gateway = a
	}
	servers := b < 3
	if servers {
		f.awaitCold(a)
	}
	done, end := f.begin(h)
	f.sw.Part(f.nets[a], a+1, f.nets[b], b+1)
	done()
	parted := time.Now()
	lasting := time.After(*failoverParted)
	if servers {
		// One of them may not hear the server that leads. Each is answered before they are joined.
		f.callCold(h.what, a, parted)
		f.awaitCold(b)
		f.callCold(h.what, b, time.Now())
	}
	<-lasting
	f.tookUntil(h.what, parted)
	f.sw.Join(f.nets[a], a+1, f.nets[b], b+1)
	f.goOn()
	f.whole(f.servers[2])
	end()
}

// fence parts a worker from every server while it runs attempts that last. They are made again elsewhere; what it makes of them later changes nothing; and
// once it is back it stops what it should not run.
func (f *failover) fence(i int) {
	f.t.Helper()
	w, fl := f.workers[i], &fleet{Server: f.servers[0], t: f.t}
	f.servers[0].Deploy("slow", "probe", "cpu: 50m\nmemory: 32Mi\nephemeral: 16Mi\negress: internet\nconcurrency: 4\nscale: {min: 3, max: 3, keepAlive: 10m}\n"+
		"placement: {spread: node}\nqueue: {retries: 10}\n")
	eventually(f.t, 60*time.Second, "the instances are spread", func() bool { return fl.on("slow")[w.Name] == 1 && total(fl.on("slow")) == 3 })
	what := fmt.Sprintf("worker %d is parted from all servers", i)
	done, end := f.begin(harm{what: what, gateway: -1, anywhere: true})
	var slow []handed
	for n := range 12 {
		h := handed{fn: "slow", key: fmt.Sprintf("slow%d", n), path: "/async/slow/effect?how=once&after=12000&store=" + effectsAt}
		resp, body := f.servers[n%3].Do("POST", h.path, h.key, nil)
		if h.id = resp.Header.Get("Tatami-Invocation-Id"); resp.StatusCode != http.StatusAccepted {
			f.t.Fatalf("%s %s", resp.Status, body)
		}
		slow = append(slow, h)
	}
	eventually(f.t, 60*time.Second, "all slots are used", func() bool {
		busy := 0
		for _, in := range instances(f.t, fl.Server, "slow") {
			busy += in.Held
		}
		return busy == len(slow)
	})
	for s := range f.servers {
		f.sw.Part(f.nets[s], s+1, f.nets[3+i], 4+i)
	}
	done()
	parted := time.Now()
	eventually(f.t, 60*time.Second, "what ran on the worker is replaced", func() bool {
		on := fl.on("slow")
		return on[w.Name] == 0 && total(on) == 3 && fl.on("warm")[w.Name] == 0 && total(fl.on("warm")) == 3
	})
	f.t.Logf("%s: what ran on it is replaced after %s", what, time.Since(parted).Round(10*time.Millisecond))
	// Both come to the end: the attempt on the worker that nobody hears, and the one that was made again.
	twice := func() (n int, again time.Time) {
		for _, h := range slow {
			_, made := f.store.of(h.id)
			for _, e := range made {
				if len(made) > 1 && e.attempt > 1 && (again.IsZero() || e.began.Before(again)) {
					again = e.began
				}
			}
			n += min(len(made)-1, 1)
		}
		return n, again
	}
	before := f.ended(slow)
	eventually(f.t, 60*time.Second, "what was made again is made twice", func() bool { n, _ := twice(); return n > 0 })
	n, again := twice()
	f.t.Logf("%s: %d attempts are made again, the first after %s", what, n, again.Sub(parted).Round(10*time.Millisecond))
	for s := range f.servers {
		f.sw.Join(f.nets[s], s+1, f.nets[3+i], 4+i)
	}
	eventually(f.t, 60*time.Second, "the worker is back", func() bool { return fl.nodes()[w.Name].State == "ready" })
	f.goOn()
	f.whole(f.servers[2])
	eventually(f.t, 60*time.Second, "the worker runs what it should, and no more", func() bool { return sandboxes(f.t, w) == fl.nodes()[w.Name].Instances })
	for j, st := range f.ended(slow) {
		if n, made := f.store.of(slow[j].id); n != 1 || st.State != functions.StateSucceeded || !st.Finished.Equal(before[j].Finished) || len(st.Attempts) != len(before[j].Attempts) {
			f.t.Errorf("%s ended as %+v, and then as %+v; its effects: %+v", slow[j].id, before[j], st, made)
		}
	}
	f.servers[0].Must("delete", "slow", "--yes")
	end()
}

// ended waits for the ends of invocations.
func (f *failover) ended(all []handed) []whereto {
	return (&chaos{t: f.t, s: f.servers[0]}).ends(all)
}
