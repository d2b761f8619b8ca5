//go:build linux && e2e

package containerd

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

var (
	identityInstances = flag.Int("identity.instances", 24, "how many instances answer at a time")
	identityRequests  = flag.Int64("identity.requests", 10_000, "how many requests are sent")
	identitySeed      = flag.Uint64("identity.seed", 7, "what is random begins with it")
)

// TestIdentity: while instances come and go, on all start paths, none answers for another, and no thread of this process stays in a
// sandbox.
func TestIdentity(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool, cfg.Precreated = 4, 1
	cfg.Allocatable.Instances = int64(*identityInstances) * 2
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	d.precreated.patience = 0
	layer := sandboxtest.Layer(t, sandboxtest.Entry{Name: "hostile", Body: sandboxtest.Program(t, "tests/escape/hostile"), Mode: 0o755})
	art := blobs.Put(t, sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/hostile"}}, goruntime.GOARCH, layer))
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, d: d, art: art, slots: make([]place, *identityInstances)}
	var begin errgroup.Group
	begin.SetLimit(8)
	for i := range c.slots {
		begin.Go(func() error { return c.replace(i) })
	}
	if err := begin.Wait(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for seed := range uint64(2) {
		churn.Go(func() {
			random := rand.New(rand.NewPCG(seed, *identitySeed))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.replace(random.IntN(len(c.slots))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var callers sync.WaitGroup
	for seed := range uint64(16) {
		callers.Go(func() { c.call(rand.New(rand.NewPCG(seed+2, *identitySeed)), *identityRequests) })
	}
	callers.Wait()
	close(stop)
	churn.Wait()
	if n := c.answered.Load(); n < *identityRequests {
		t.Errorf("%d requests were answered, not %d", n, *identityRequests)
	}
	t.Logf("%d answers, %d requests ended with their instance, %d starts, %d of them attached, %d in a container made ahead", c.answered.Load(), c.lost.Load(), c.starts.Load(), c.attached.Load(), c.precreated.Load())
	for i := range c.slots {
		if err := c.empty(i); err != nil {
			t.Error(err)
		}
	}
	d.pool.drain()
	d.precreated.drain()
	var strange []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strange = strangers(t); len(strange) == 0 {
			break
		}
	}
	if len(strange) > 0 {
		t.Errorf("threads in other namespaces: %q", strange)
	}
	if a, p := c.attached.Load(), c.precreated.Load(); a == 0 || p == 0 || a+p == c.starts.Load() {
		t.Errorf("%d of %d starts were attached, %d in a container made ahead: one of the ways was not tried", a, c.starts.Load(), p)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// crowd is many instances, each with its own name to answer with.
type crowd struct {
	t                                            testing.TB
	d                                            *Driver
	art                                          functions.Artifact
	slots                                        []place
	answered, lost, starts, attached, precreated atomic.Int64
}

// place has one instance after the other.
type place struct {
	turn sync.Mutex
	now  atomic.Pointer[member]
}

// member is an instance and the connections to it.
type member struct {
	sb     sandbox.Sandbox
	client *http.Client
}

// replace puts a new instance in the slot and ends the one before, as a new revision does.
func (c *crowd) replace(i int) error {
	s := &c.slots[i]
	s.turn.Lock()
	defer s.turn.Unlock()
	spec := testSpec(c.art)
	spec.Env = append(spec.Env, "IDENTITY="+string(spec.ID))
	if c.starts.Load()%8 == 0 {
		// That is not for a sandbox of the pool.
		spec.Limits.Ephemeral = 0
		if c.starts.Load() > 0 {
			c.d.precreated.expect(c.t, spec)
		}
	}
	sb, err := c.d.Create(context.Background(), spec)
	if err != nil {
		return err
	}
	c.starts.Add(1)
	switch sb.Info().StartPath {
	case pathAttach:
		c.attached.Add(1)
	case pathPrecreated:
		c.precreated.Add(1)
	}
	awaitServing(c.t, sb)
	m := &member{sb, &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 4, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return sb.Dial(ctx) },
	}}}
	return end(s.now.Swap(m))
}

func (c *crowd) empty(i int) error {
	s := &c.slots[i]
	s.turn.Lock()
	defer s.turn.Unlock()
	return end(s.now.Swap(nil))
}

func end(m *member) error {
	if m == nil {
		return nil
	}
	m.client.CloseIdleConnections()
	return m.sb.Stop(context.Background(), 0)
}

// call asks instances for their names until enough have answered.
func (c *crowd) call(random *rand.Rand, enough int64) {
	for c.answered.Load() < enough && !c.t.Failed() {
		m := c.slots[random.IntN(len(c.slots))].now.Load()
		got, err := identify(m.client)
		switch {
		case err != nil:
			// It was on its way out.
			c.lost.Add(1)
		case got != string(m.sb.Info().ID):
			c.t.Errorf("%s was asked and %s answered", m.sb.Info().ID, got)
		default:
			c.answered.Add(1)
		}
	}
}

func identify(hc *http.Client) (string, error) {
	resp, err := hc.Get("http://sandbox/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
