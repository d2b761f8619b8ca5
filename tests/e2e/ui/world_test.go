//go:build e2e

package ui_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/live"
	"github.com/tatami-faas/tatami/gateway/ui"
	"github.com/tatami-faas/tatami/internal/bus"
)

// load is one function of the world.
type load struct {
	ref                 functions.Ref
	rps, swing          float64
	p50                 time.Duration
	memory              int64
	cpu                 int64
	slots               int
	errors, cold        float64
	dead, queued        int
	pending             string
	want                int
	requests, bad, slow uint64
	failures            uint64
}

// world plays a small cluster: its sources are what the scheduler, the data path and the queue would say.
type world struct {
	mu     sync.Mutex
	rnd    *rand.Rand
	now    time.Time
	paced  bool
	broken bool
	denied bool
	absent bool
	nodes  []bus.NodeStatus
	loads  []*load
	insts  []bus.InstanceStatus
	notice string
	pool   *bus.PoolStatus
	// servers are those of the cluster; none where the server stands alone.
	servers []live.Server
	// silent is the server whose gateway does not tell what it does.
	silent string
	serial int
	asked  time.Duration
}

func ref(name string) functions.Ref {
	r, err := functions.ParseRef(name)
	if err != nil {
		return functions.Ref{Namespace: "default", Name: name}
	}
	return r
}

func newWorld(nodes int, loads ...*load) *world {
	w := &world{rnd: rand.New(rand.NewPCG(7, 7)), now: time.Now().Add(-15 * time.Minute), loads: loads}
	sizes := []int64{16, 16, 8}
	for i := range nodes {
		memory := sizes[i%len(sizes)] * functions.GiB
		cpu := memory / functions.GiB * 500
		n := bus.NodeStatus{ID: functions.NodeID(fmt.Sprintf("nod_%d", i+1)), NodeState: bus.NodeState{
			Name: fmt.Sprintf("rack-%d", i+1), Architecture: "amd64",
			Capacity:    functions.Resources{CPU: cpu, Memory: memory, Instances: 1000},
			Allocatable: functions.Resources{CPU: cpu - 500, Memory: memory - memory/10, Instances: 1000},
		}}
		w.nodes = append(w.nodes, n)
	}
	return w
}

func busy() []*load {
	mi := functions.MiB
	return []*load{
		{ref: ref("checkout"), rps: 420, swing: 0.3, p50: 4 * time.Millisecond, memory: 320 * mi, cpu: 250, slots: 20, errors: 0.002, cold: 0.001, want: 6},
		{ref: ref("resize"), rps: 38, swing: 0.6, p50: 85 * time.Millisecond, memory: 768 * mi, cpu: 500, slots: 2, cold: 0.02, queued: 118, want: 7},
		{ref: ref("hello"), rps: 12, swing: 0.2, p50: 900 * time.Microsecond, memory: 192 * mi, cpu: 100, slots: 50, want: 1},
		{ref: ref("thumbnail"), rps: 9, swing: 0.9, p50: 140 * time.Millisecond, memory: 512 * mi, cpu: 500, slots: 1, cold: 0.06, want: 5},
		{ref: ref("search"), rps: 160, swing: 0.4, p50: 11 * time.Millisecond, memory: 640 * mi, cpu: 500, slots: 10, want: 4},
		{ref: ref("session"), rps: 610, swing: 0.25, p50: 1200 * time.Microsecond, memory: 192 * mi, cpu: 250, slots: 50, want: 3},
		{ref: ref("pdf-render.reports"), rps: 2, swing: 1, p50: 900 * time.Millisecond, memory: 1024 * mi, cpu: 1000, slots: 1, cold: 0.2, dead: 3, queued: 6, want: 2},
		{ref: ref("nightly-export.reports"), memory: 512 * mi, cpu: 500, slots: 1, p50: time.Second},
		{ref: ref("webhook-github"), rps: 0.6, swing: 1, p50: 6 * time.Millisecond, memory: 192 * mi, cpu: 100, slots: 10, want: 1, errors: 0.01},
		{ref: ref("webhook-stripe"), rps: 0.2, swing: 1, p50: 7 * time.Millisecond, memory: 192 * mi, cpu: 100, slots: 10},
		{ref: ref("inference.ml"), rps: 5, swing: 0.4, p50: 310 * time.Millisecond, memory: 2048 * mi, cpu: 1500, slots: 2, want: 3},
		{ref: ref("embed.ml"), rps: 24, swing: 0.5, p50: 42 * time.Millisecond, memory: 1024 * mi, cpu: 500, slots: 4, want: 2, queued: 31},
	}
}

// step plays one second.
func (w *world) step() {
	w.now = w.now.Add(time.Second)
	t := float64(w.now.Unix())
	for i, l := range w.loads {
		if l.rps > 0 {
			wave := 1 + l.swing*math.Sin(t/(70+13*float64(i)))*math.Cos(t/(31+7*float64(i)))
			n := l.rps * max(0, wave) * (0.85 + 0.3*w.rnd.Float64())
			count := uint64(n)
			if w.rnd.Float64() < n-float64(count) {
				count++
			}
			l.requests += count
			for range count {
				if w.rnd.Float64() < l.errors {
					l.bad++
				}
				if w.rnd.Float64() < l.cold*0.2 {
					l.slow++
				}
			}
		}
		w.place(l)
	}
}

// place keeps as many instances of the function as it wants and moves each through its life.
func (w *world) place(l *load) {
	have := 0
	kept := w.insts[:0]
	for _, in := range w.insts {
		if in.Ref() != l.ref {
			kept = append(kept, in)
			continue
		}
		age := w.now.Sub(in.Since)
		switch {
		case in.State == functions.InstanceStarting && age > 2*time.Second:
			in.State, in.Since = functions.InstanceReady, w.now
		case in.State == functions.InstanceDraining && age > 6*time.Second:
			continue
		case in.State == functions.InstanceReady && age > 60*time.Second && w.rnd.Float64() < 0.004:
			in.State, in.Since, in.Reason = functions.InstanceDraining, w.now, "idle for 5m"
		}
		if in.State == functions.InstanceReady {
			use := 0.0
			if l.rps > 0 && l.want > 0 {
				use = min(1, l.rps/float64(l.want)*l.p50.Seconds()/float64(l.slots)*(0.6+w.rnd.Float64()))
			}
			in.Held = int(math.Round(use*float64(l.slots) + w.rnd.Float64()*0.7))
			in.Held = min(in.Held, l.slots)
			in.Usage.CPU += functions.Duration(float64(l.cpu) * (0.1 + 0.5*use) * float64(time.Millisecond))
			in.Usage.Memory = int64(float64(l.memory) * (0.35 + 0.03*w.rnd.Float64()))
		}
		if in.State != functions.InstanceDraining {
			have++
		}
		kept = append(kept, in)
	}
	w.insts = kept
	for ; have < l.want; have++ {
		w.serial++
		var best *bus.NodeStatus
		for i := range w.nodes {
			n := &w.nodes[i]
			if w.reserved(n.ID).Memory+l.memory <= n.Allocatable.Memory && (best == nil || w.reserved(n.ID).Memory > w.reserved(best.ID).Memory) {
				best = n
			}
		}
		if best == nil {
			return
		}
		w.insts = append(w.insts, bus.InstanceStatus{Node: best.ID, Placement: "tightest of " + fmt.Sprint(len(w.nodes)) + " nodes that fit", InstanceReport: bus.InstanceReport{
			Instance: functions.InstanceID(fmt.Sprintf("ins_%026d", w.serial)), Namespace: l.ref.Namespace, Function: l.ref.Name, Revision: "rev_7m2k9q4c1xk0",
			State: functions.InstanceStarting, Since: w.now, Started: w.now, Slots: l.slots,
			Reserved: functions.Resources{CPU: l.cpu, Memory: l.memory, Instances: 1},
		}})
	}
}

func (w *world) reserved(node functions.NodeID) functions.Resources {
	var sum functions.Resources
	for _, in := range w.insts {
		if in.Node == node {
			sum = sum.Add(in.Reserved)
		}
	}
	return sum
}

func (w *world) overview(ctx context.Context) (bus.Overview, error) {
	w.mu.Lock()
	paced := w.paced
	w.mu.Unlock()
	if paced {
		select {
		case <-time.After(time.Until(w.clock().Add(time.Second))):
		case <-ctx.Done():
			return bus.Overview{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step()
	if !w.now.Before(time.Now().Add(-time.Second)) {
		w.paced = true
	}
	if w.broken {
		return bus.Overview{}, errors.New("no responders")
	}
	o := bus.Overview{Schema: bus.Schema, At: w.now}
	if w.pool != nil {
		p := *w.pool
		o.Pool = &p
	}
	for _, n := range w.nodes {
		n.Reserved, n.LastSeen = w.reserved(n.ID), w.now
		n.CPUUsed, n.MemoryUsed = n.Capacity.CPU/20, n.Capacity.Memory/12
		for _, in := range w.insts {
			if in.Node == n.ID {
				n.MemoryUsed += in.Usage.Memory
				n.CPUUsed += in.Reserved.CPU * int64(20+w.rnd.IntN(20)) / 100
			}
		}
		o.Nodes = append(o.Nodes, n)
	}
	o.Instances = append(o.Instances, w.insts...)
	for _, l := range w.loads {
		s := bus.FunctionStatus{Namespace: l.ref.Namespace, Function: l.ref.Name, Desired: l.want, Pending: l.pending, StartFailures: l.failures,
			Reason: fmt.Sprintf("concurrency %.1f over 60s, %d slots each", l.rps*l.p50.Seconds(), l.slots)}
		for _, in := range w.insts {
			if in.Ref() == l.ref {
				switch in.State {
				case functions.InstanceStarting:
					s.Starting++
				case functions.InstanceDraining:
					s.Draining++
				default:
					s.Ready++
				}
			}
		}
		o.Functions = append(o.Functions, s)
	}
	o.Namespaces = []bus.NamespaceStatus{{Namespace: "ml", Used: functions.Resources{CPU: 5500, Memory: 8 * functions.GiB, Instances: 5}, Functions: 2,
		Effective: &functions.Quota{Namespace: "ml", CPU: 8000, Memory: 12 * functions.GiB, Instances: 20}}}
	if len(w.loads) == 0 {
		o.Namespaces = nil
	}
	return o, nil
}

// cluster tells of the servers.
func (w *world) cluster() []live.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.servers)
}

// hire has a pool run the first two nodes.
func (w *world) hire() {
	w.pool = &bus.PoolStatus{Name: "Nomad job tatami-worker", Elastic: true, Count: 2, Min: 1, Max: 10, Wanted: 2, Running: 2}
	for i := range w.nodes[:2] {
		w.nodes[i].Pool = w.pool.Name
	}
}

// lack has the pool be too small.
func (w *world) lack() {
	w.pool = &bus.PoolStatus{
		Name: "Nomad job tatami-worker", Elastic: true, Count: 3, Min: 1, Max: 10, Wanted: 4, Running: 2, Lacking: 5,
		Reason: "1 more wanted for 5 instances without room", Busy: "deployment 0f3c is active",
		Resized: &bus.PoolResize{At: w.now.Add(-10 * time.Second), From: 2, To: 3, Reason: "1 more wanted for 2 instances without room"},
	}
}

func (w *world) traffic(context.Context) live.Gateways {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []live.Traffic
	for _, l := range w.loads {
		t := live.Traffic{Namespace: l.ref.Namespace, Function: l.ref.Name, Requests: l.requests, Errors: l.bad, ColdStarts: l.slow}
		if l.rps > 0 {
			jitter := 0.9 + 0.2*w.rnd.Float64()
			t.P50 = functions.Duration(float64(l.p50) * jitter)
			t.P99 = functions.Duration(float64(l.p50) * jitter * (3 + 2*w.rnd.Float64()))
			t.InFlight = int(l.rps*l.p50.Seconds() + w.rnd.Float64())
		}
		if l.pending != "" {
			t.Waiting = 14
		}
		out = append(out, t)
	}
	g := live.Gateways{All: out}
	for i, s := range w.servers {
		g.Each = append(g.Each, live.Gateway{Peer: s.Peer, Name: s.Name, Own: i == 0, Told: s.Up && s.Name != w.silent})
	}
	if len(g.Each) == 0 {
		g.Each = []live.Gateway{{Own: true, Told: true}}
	}
	g.Each[0].Functions = out
	return g
}

func (w *world) queues() map[functions.Ref]live.Queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[functions.Ref]live.Queue{}
	for _, l := range w.loads {
		q := live.Queue{Dead: l.dead}
		if l.queued > 0 {
			q.Pending = l.queued + w.rnd.IntN(1+l.queued/4)
			q.Scheduled, q.Running = l.queued/20, min(4, l.queued)
			q.Oldest = w.now.Add(-time.Duration(3+l.queued/12) * time.Second)
		}
		out[l.ref] = q
	}
	return out
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	// No two looks at a clock show the same.
	w.asked = (w.asked + 1) % time.Millisecond
	return w.now.Add(w.asked)
}

// change alters the world between two seconds of it.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// serve runs the real handlers on the world, after 15 minutes of it went by at once. It returns when they did. outage breaks every connection;
// with restart the part that feeds the page begins anew, too.
func (w *world) serve(t *testing.T) (origin string, outage func(restart bool)) {
	t.Helper()
	handler, err := ui.New()
	if err != nil {
		t.Fatal(err)
	}
	cfg := live.Config{Every: time.Millisecond, IdleEvery: time.Nanosecond, Timeout: 5 * time.Second, Now: w.clock}
	start := func() (*live.Live, func()) {
		l, err := live.New(cfg, live.Sources{Overview: w.overview, Traffic: w.traffic, Queues: w.queues, Servers: w.cluster, Notices: func() []string { return []string{w.notice} }},
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		return l, func() { cancel(); wg.Wait() }
	}
	var mu sync.Mutex
	current, stop := start()
	get := func() *live.Live { mu.Lock(); defer mu.Unlock(); return current }
	mux := http.NewServeMux()
	mux.Handle("/ui", handler)
	mux.Handle("/ui/", handler)
	guard := func(serve func(*live.Live) http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			denied, absent := w.denied, w.absent
			w.mu.Unlock()
			if absent {
				panic(http.ErrAbortHandler)
			}
			if denied {
				http.Error(rw, "no session", http.StatusUnauthorized)
				return
			}
			serve(get())(rw, r)
		}
	}
	mux.HandleFunc("GET /v1/overview", guard(func(l *live.Live) http.HandlerFunc { return l.ServeOverview }))
	mux.HandleFunc("GET /v1/stream", guard(func(l *live.Live) http.HandlerFunc { return l.ServeStream }))
	srv := httptest.NewServer(mux)
	t.Cleanup(func() { stop(); srv.CloseClientConnections(); srv.Close() })
	deadline := time.Now().Add(60 * time.Second)
	for {
		w.mu.Lock()
		paced := w.paced
		w.mu.Unlock()
		if paced {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("fifteen minutes took more than one")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return srv.URL, func(restart bool) {
		mu.Lock()
		defer mu.Unlock()
		srv.CloseClientConnections()
		if restart {
			stop()
			current, stop = start()
		}
	}
}
