//go:build e2e

package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

var (
	chaosInvocations = flag.Int("chaos.invocations", 1200, "invocations that TestChaosQueue hands over")
	chaosKills       = flag.Int("chaos.kills", 6, "kills among them")
	chaosSeed        = flag.Uint64("chaos.seed", 0, "seed of the kills; 0 takes one from the clock")
)

// handed is an invocation as its caller knows it.
type handed struct {
	id, key, fn, path, fail string
}

// kill is a kill -9 of something, and when it was.
type kill struct {
	what string
	at   time.Time
}

// chaos is a server, a worker that joined it, and what is done to them.
type chaos struct {
	t      *testing.T
	s      *harness.Server
	w      *harness.Worker
	random *rand.Rand
	kills  []kill
}

// Work is handed over while the process with gateway, dispatcher and scheduler, the worker's process and the containers are killed at
// random. Nothing that was accepted is lost, each ends as it must, no attempt begins behind the end, and what runs more than once is told
// from what does not: by the recorded attempts, or by a kill in between.
func TestChaosQueue(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: %d invocations, %d kills", seed, *chaosInvocations, *chaosKills)
	world := outsideWorld(t)
	store := keepEffects(t, world)
	s := harness.Start(t, harness.WithNetwork(world.host), harness.WithFlags(
		"--egress-dns", internetAddr, "--public-addr", hostAddr+":8080", "--control-addr", hostAddr+":8081", "--nats-listen", "127.0.0.1:4222", "--no-worker"))
	s.Public = hostAddr + ":8080"
	worker := harness.Join(t, s, "127.0.0.1:4222", "--egress-dns", internetAddr)
	c := &chaos{t: t, s: s, w: worker, random: rand.New(rand.NewPCG(seed, 0))}
	for _, fn := range []string{"blind", "once"} {
		s.Deploy(fn, "probe", "egress: internet\nmemory: 64Mi\nscale: {max: 2}\nqueue: {retries: 6}\n")
		s.Deploy("dies-"+fn, "probe", "egress: internet\nmemory: 64Mi\nscale: {max: 1}\nqueue: {retries: 1}\n")
	}

	all := c.load(*chaosInvocations, *chaosKills)
	last := c.ends(all)
	// A restart more changes no end.
	s.Kill()
	c.kills = append(c.kills, kill{"gateway", time.Now()})
	s.Launch()
	again := c.ends(all)
	extra := 0
	for i, h := range all {
		st := last[i]
		if again[i].State != st.State || len(again[i].Attempts) != len(st.Attempts) || !again[i].Finished.Equal(st.Finished) {
			t.Errorf("%s ended twice: %+v and %+v", h.id, st, again[i])
		}
		extra += c.judge(h, st, store)
	}
	keys := map[string]string{}
	store.mu.Lock()
	defer store.mu.Unlock()
	for id, made := range store.all {
		for _, e := range made {
			if other := keys[e.key]; other != "" && other != id && e.key[0] == 'k' {
				t.Errorf("%s is the key of %s and of %s", e.key, id, other)
			}
			keys[e.key] = id
		}
	}
	t.Logf("%d invocations, %d kills, %d attempts made again after one", len(all), len(c.kills), extra)
}

// load hands invocations over and kills at random meanwhile.
func (c *chaos) load(n, kills int) []handed {
	const callers = 12
	all := make([]handed, n)
	var next atomic.Int64
	turn := make(chan int, n)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || c.t.Context().Err() != nil {
					return
				}
				all[i] = c.handOver(i)
				turn <- i
			}
		})
	}
	at := make(map[int]bool, kills)
	for len(at) < kills {
		at[1+c.random.IntN(n-1)] = true
	}
	for done := range n {
		select {
		case <-turn:
		case <-time.After(3 * time.Minute):
			c.t.Fatalf("nothing is accepted any more after %d", done)
		}
		if at[done] {
			c.kill()
		}
	}
	wg.Wait()
	return all
}

// handOver hands one invocation over, until it is accepted. What it does follows from its number.
func (c *chaos) handOver(i int) handed {
	h := handed{fn: []string{"blind", "once"}[i%2], key: fmt.Sprintf("k%d", i)}
	how := h.fn
	switch i % 20 {
	case 4, 5:
		h.fail = "first"
	case 6, 7:
		h.fail, h.fn = "always", "dies-"+h.fn
	}
	header := http.Header{"Idempotency-Key": {h.key}}
	if i%3 == 0 {
		// Without a key a repetition is another invocation: only the one that was accepted is known.
		header, h.key = nil, fmt.Sprintf("u%d", i)
	}
	h.path = fmt.Sprintf("/async/%s/effect?store=%s&how=%s&fail=%s", h.fn, effectsAt, how, h.fail)
	for {
		resp, body, err := c.s.TryDo("POST", h.path, h.key, header)
		if err == nil && resp.StatusCode == http.StatusAccepted {
			h.id = resp.Header.Get("Tatami-Invocation-Id")
			return h
		}
		if err == nil && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
			c.t.Errorf("%s: %s %s", h.path, resp.Status, body)
			return h
		}
		if c.t.Context().Err() != nil {
			return h
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// kill ends one of the processes, or an instance's.
func (c *chaos) kill() {
	what := []string{"gateway", "worker", "instance", "both"}[c.random.IntN(4)]
	switch what {
	case "gateway":
		c.s.Kill()
	case "worker":
		c.w.Kill()
	case "both":
		c.w.Kill()
		c.s.Kill()
	default:
		c.killInstance()
	}
	c.kills = append(c.kills, kill{what, time.Now()})
	if what == "gateway" || what == "both" {
		c.s.Launch()
	}
	if what == "worker" || what == "both" {
		c.w.Launch()
	}
}

// killInstance ends a function's process, where one runs.
func (c *chaos) killInstance() {
	r := c.s.CLI("inst", "ls", "-o", "json")
	var all []v1.Instance
	if r.Exit != 0 || json.Unmarshal([]byte(r.Stdout), &all) != nil {
		return
	}
	for _, i := range c.random.Perm(len(all)) {
		if pid := all[i].PID; pid > 1 && all[i].State == functions.InstanceReady {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

// whereto is where an invocation came to.
type whereto struct {
	State    functions.InvocationState `json:"state"`
	Reason   string                    `json:"reason"`
	Attempts []functions.Attempt       `json:"attempts"`
	Finished time.Time                 `json:"finished"`
}

// ends waits for the end of each.
func (c *chaos) ends(all []handed) []whereto {
	c.t.Helper()
	out := make([]whereto, len(all))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				out[i] = c.end(all[i])
			}
		})
	}
	wg.Wait()
	return out
}

func (c *chaos) end(h handed) (st whereto) {
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		resp, body, err := c.s.TryDo("GET", "/invocations/"+h.id+"?wait=30s", "", nil)
		switch {
		case err != nil:
			c.t.Errorf("%s: %v", h.id, err)
			return st
		case resp.StatusCode != http.StatusOK:
			c.t.Errorf("%s was accepted and is lost: %s %s", h.id, resp.Status, body)
			return st
		}
		if err := json.Unmarshal([]byte(body), &st); err != nil || st.State.Terminal() {
			return st
		}
	}
	c.t.Errorf("%s has not ended: %+v", h.id, st)
	return st
}

// late is how much later than the end an attempt may begin: one that was sent before, to a function that had not come to it yet.
const late = 300 * time.Millisecond

// judge holds an invocation against what is known outside, and returns how many attempts of it were made again after a kill.
func (c *chaos) judge(h handed, st whereto, store *effects) (again int) {
	want := functions.StateSucceeded
	if h.fail == "always" {
		want = functions.StateDead
	}
	if st.State != want {
		c.t.Errorf("%s %s: %+v, want %s", h.id, h.path, st, want)
	}
	count, made := store.of(h.id)
	if h.path != "" && len(made) == 0 {
		c.t.Errorf("%s %s ended as %s without an attempt", h.id, h.path, st.State)
		return 0
	}
	if (h.fn == "once" || h.fn == "dies-once") && count != 1 {
		c.t.Errorf("%s has %d effects, its function makes one of each invocation", h.id, count)
	}
	recorded := map[int]bool{}
	for _, a := range st.Attempts {
		recorded[a.Number] = true
	}
	lastOf := map[int]time.Time{}
	for _, e := range made {
		if e.began.After(st.Finished.Add(late)) {
			c.t.Errorf("%s: attempt %d began at %s, after the end at %s", h.id, e.attempt, e.began, st.Finished)
		}
		if !recorded[e.attempt] {
			c.t.Errorf("%s: attempt %d is not in the record: %+v", h.id, e.attempt, st.Attempts)
		}
		before, twice := lastOf[e.attempt]
		if twice {
			again++
			if !c.killedBetween(before, e.began) {
				c.t.Errorf("%s: attempt %d began at %s and at %s, and nothing was killed in between", h.id, e.attempt, before, e.began)
			}
		}
		lastOf[e.attempt] = e.began
	}
	return again
}

func (c *chaos) killedBetween(a, b time.Time) bool {
	if b.Before(a) {
		a, b = b, a
	}
	for _, k := range c.kills {
		// A kill is noted once the process is gone.
		if k.at.After(a) && k.at.Before(b.Add(late)) {
			return true
		}
	}
	return false
}
