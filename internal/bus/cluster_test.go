package bus_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// trio is a cluster of three servers in this process.
type trio struct {
	t     *testing.T
	cfgs  [3]bus.Config
	buses [3]*bus.Bus
}

func clusterSecret(t *testing.T) []byte {
	t.Helper()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	return newTrioOf(t, t.TempDir(), clusterSecret(t))
}

// newTrioOf is newTrio with the secret, and the first server in a directory.
func newTrioOf(t *testing.T, dir string, secret []byte) *trio {
	t.Helper()
	c := &trio{t: t}
	// Addresses that no other socket gets.
	prefix := fmt.Sprintf("127.%d.%d", 1+mrand.IntN(254), mrand.IntN(255))
	var peers []string
	for i := range c.cfgs {
		peers = append(peers, fmt.Sprintf("%s.%d:6222", prefix, i+1))
	}
	for i := range c.cfgs {
		c.cfgs[i] = bus.Config{
			DataDir: t.TempDir(), Listen: fmt.Sprintf("%s.%d:4222", prefix, i+1),
			Cluster: &bus.ClusterConfig{Name: "test", Listen: peers[i], Peers: peers, Authority: secret},
		}
	}
	c.cfgs[0].DataDir = dir
	c.open(0, 1, 2)
	t.Cleanup(func() {
		for i, b := range c.buses {
			if t.Failed() && b != nil {
				t.Logf("server %d let in and refused: %v", i, audited(t, b))
			}
		}
		c.close(0, 1, 2)
	})
	return c
}

// open opens servers together, as each waits for the others.
func (c *trio) open(which ...int) {
	c.t.Helper()
	var wg sync.WaitGroup
	for _, i := range which {
		wg.Go(func() {
			b, err := bus.Open(c.t.Context(), c.cfgs[i], discard())
			if err != nil {
				c.t.Errorf("server %d: %v", i, err)
				return
			}
			c.buses[i] = b
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

func (c *trio) close(which ...int) {
	for _, i := range which {
		if c.buses[i] != nil {
			_ = c.buses[i].Close(context.Background())
			c.buses[i] = nil
		}
	}
}

// insistently repeats what a cluster refuses while it elects.
func insistently(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for over := time.Now().Add(time.Minute); time.Now().Before(over); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// What one server stores the others have, and it stays while one of them is away; workers join whichever, with a token of another, and are
// removed at all of them.
func TestThreeServersAgree(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	put := func(b *bus.Bus, name string) {
		t.Helper()
		ref := functions.Ref{Namespace: "default", Name: name}
		insistently(t, "storing "+name, func() error {
			_, err := b.Functions().Put(t.Context(), bus.FunctionKey(ref), functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name})
			return err
		})
	}
	has := func(b *bus.Bus, name string) {
		t.Helper()
		insistently(t, "reading "+name, func() error {
			f, _, err := b.Functions().Get(t.Context(), bus.FunctionKey(functions.Ref{Namespace: "default", Name: name}))
			if err == nil && f.Name != name {
				t.Errorf("it is %q", f.Name)
			}
			return err
		})
	}
	put(c.buses[0], "one")
	has(c.buses[1], "one")
	if err := c.buses[0].Barrier(t.Context(), c.buses[0].Functions().Stream()); err != nil {
		t.Errorf("the barrier: %v", err)
	}
	passed := make(chan error, 1)
	c.buses[0].BarrierThen(func(err error) { passed <- err }, bus.StreamInvocations)
	if err := <-passed; err != nil {
		t.Errorf("the barrier: %v", err)
	}

	var want []string
	for i := range 100 {
		subject := fmt.Sprintf("%s.h.%d", []string{"inv", "sched"}[i%2], i)
		if i%2 > 0 {
			want = append(want, subject)
		}
		insistently(t, "queuing "+subject, func() error {
			// One whose answer was lost in an election is stored, and is not stored again.
			_, err := c.buses[i%3].Store(t.Context(), &nats.Msg{Subject: subject, Header: nats.Header{"Nats-Msg-Id": {subject}}})
			return err
		})
	}
	durable := &nats.Msg{Subject: "inv.h.durable", Header: nats.Header{"Nats-Msg-Id": {"durable"}}}
	if err := c.buses[2].StoreDurably(t.Context(), durable, bus.StreamInvocations); err != nil {
		t.Errorf("storing durably: %v", err)
	}
	if err := c.buses[1].Await(t.Context(), bus.StreamInvocations); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := c.buses[1].EachStored(t.Context(), bus.StreamInvocations, "sched.>", func(_ uint64, subject string, _ nats.Header) {
		got = append(got, subject)
	}); err != nil || !slices.Equal(got, want) {
		t.Errorf("the queue has %q, want %q; %v", got, want, err)
	}

	_, text, err := c.buses[0].Roster().CreateToken("rack", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l := join(t, bus.JoinConfig{URL: c.buses[1].ListenURL(), Token: text, DismissAfter: time.Millisecond})
	ended := runLink(t, l)
	if _, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: c.buses[2].ListenURL(), Token: text}, discard()); !fault.Is(err, fault.CodeDenied) {
		t.Errorf("a second worker with the token, at another server: %v", err)
	}
	shared := sharedToken(t, c.buses[0])
	if other := sharedToken(t, c.buses[2]); other != shared {
		t.Error("the servers do not have their token in common")
	}
	join(t, bus.JoinConfig{URL: c.buses[2].ListenURL(), Token: shared})
	if err := c.buses[2].Roster().Remove(l.Identity().Node, "test"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		wantCode(t, err, fault.CodeDenied)
	case <-time.After(time.Minute):
		t.Fatal("the worker goes on at another server than the one that removed it")
	}

	// Callers of functions are let in wherever they come, and are shut out everywhere.
	caller, password, err := c.buses[0].Callers().Create("shop", []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	shut := make(chan struct{})
	insistently(t, "calling at another server", func() error {
		nc, err := nats.Connect(c.buses[2].ListenURL(), patient, nats.UserInfo(caller.ID, password), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(shut) }))
		if err == nil {
			t.Cleanup(nc.Close)
		}
		return err
	})
	if _, err := c.buses[1].Callers().Revoke(caller.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-shut:
	case <-time.After(time.Minute):
		t.Fatal("a caller goes on at another server than the one that revoked it")
	}

	insistently(t, "having a stream held by all", func() error {
		n, err := c.buses[1].Settle(t.Context(), bus.StreamDead)
		if err == nil && n != len(c.buses) {
			t.Errorf("%d servers hold it", n)
		}
		return err
	})

	c.close(2)
	put(c.buses[1], "two")
	has(c.buses[0], "two")
	c.open(2)
	has(c.buses[2], "two")
}

// Whichever server is asked lists and tells what another one has just stored, and nothing that is deleted.
func TestEveryServerKnowsWhatWasStored(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	for i := range 150 {
		ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("fn%d", i)}
		key := bus.FunctionKey(ref)
		var rev uint64
		insistently(t, "storing "+key, func() (err error) {
			rev, err = c.buses[i%3].Functions().Put(t.Context(), key, functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name})
			return err
		})
		var keys []string
		insistently(t, "listing", func() (err error) {
			keys, err = c.buses[(i+1)%3].Functions().Keys(t.Context(), "")
			return err
		})
		if len(keys) != 1 || keys[0] != key {
			t.Fatalf("after %s was stored the keys are %q", key, keys)
		}
		told := uint64(0)
		ctx, cancel := context.WithCancel(t.Context())
		insistently(t, "watching", func() error {
			return c.buses[(i+2)%3].Functions().Watch(ctx, key, func(e bus.Event[functions.Function]) {
				if told = max(told, e.Revision); e.Synced {
					cancel()
				}
			})
		})
		if told != rev {
			t.Fatalf("%s was stored as %d, and a watch told of %d before what it called all", key, rev, told)
		}
		insistently(t, "deleting "+key, func() error { return c.buses[i%3].Functions().Delete(t.Context(), key) })
		if l, err := c.buses[(i+1)%3].Functions().List(t.Context(), "default.*"); err != nil || len(l) > 0 {
			t.Fatalf("after %s was deleted there is %+v; %v", key, l, err)
		}
	}
}

// Of many who write a record at once, at any of the servers, one does, and the others are told that it was changed.
func TestOneOfManyWrites(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	insistently(t, "the first record", func() error {
		_, err := c.buses[0].Functions().Put(t.Context(), "first", functions.Function{Schema: 1})
		return err
	})
	rec := functions.KeyRecord{Schema: 1, State: functions.KeyAccepted, Until: time.Now().Add(time.Hour)}
	insistently(t, "the first key", func() error {
		_, err := c.buses[0].Keys().Put(t.Context(), "first", &rec, 0)
		return err
	})
	for i := range 20 {
		name := fmt.Sprintf("record%d", i)
		var wg sync.WaitGroup
		var created, kept atomic.Int32
		var unsure atomic.Bool
		tell := func(err error, won *atomic.Int32) {
			switch {
			case err == nil:
				won.Add(1)
			case strings.Contains(err.Error(), "wrong last sequence"):
				t.Errorf("%s: %v", name, err)
			case !fault.Is(err, fault.CodeConflict):
				// An election of a slow machine.
				unsure.Store(true)
			}
		}
		for n := range 12 {
			b, own := c.buses[n%3], rec
			// Of two who write the same each may take the other's for its own, where its answer was lost.
			own.ID = functions.InvocationID(fmt.Sprint(n))
			wg.Go(func() {
				_, err := b.Functions().Create(t.Context(), name, functions.Function{Schema: 1, Name: name, Generation: uint64(n)})
				tell(err, &created)
				_, err = b.Keys().Put(t.Context(), name, &own, 0)
				tell(err, &kept)
			})
		}
		wg.Wait()
		if a, b := created.Load(), kept.Load(); a > 1 || b > 1 || a+b < 2 && !unsure.Load() {
			t.Errorf("%s was created %d times and its key %d times", name, a, b)
		}
	}
}

// Directories are a cluster's, or of a server that stands alone: neither is opened as the other, and no secret but the cluster's is taken.
func TestAClustersDirectoryIsItsOwn(t *testing.T) {
	t.Parallel()
	alone := open(t, bus.Config{})
	dir := alone.DataDir()
	_ = alone.Close(t.Context())
	peers := []string{"127.0.0.1:6222", "127.0.0.2:6222", "127.0.0.3:6222"}
	cfg := bus.Config{DataDir: dir, Listen: "127.0.0.1:0", Cluster: &bus.ClusterConfig{Name: "test", Listen: peers[0], Peers: peers, Authority: clusterSecret(t)}}
	_, err := bus.Open(t.Context(), cfg, discard())
	wantCode(t, err, fault.CodeConflict)
	if f := fault.From(err); !strings.Contains(f.Hint, "tatami cluster init --from "+dir) {
		t.Errorf("the error helps nobody: %+v", f)
	}
	for field, change := range map[string]func(*bus.Config){
		"cluster":        func(c *bus.Config) { c.Cluster.Name = "No Name" },
		"peers":          func(c *bus.Config) { c.Cluster.Peers = peers[:2] },
		"cluster-listen": func(c *bus.Config) { c.Cluster.Listen = "127.0.0.9:6222" },
		"nats-listen":    func(c *bus.Config) { c.Listen = "" },
		"cluster-secret": func(c *bus.Config) { c.Cluster.Authority = nil },
	} {
		bad, own := cfg, *cfg.Cluster
		bad.DataDir, bad.Cluster = t.TempDir(), &own
		change(&bad)
		_, err := bus.Open(t.Context(), bad, discard())
		if f := fault.From(err); f == nil || f.Code != fault.CodeInvalidRequest || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// A server that could not be reached says so at once, instead of waiting for the others for minutes; nor does it wait on when it is to stop.
func TestAServerThatCannotListenDoesNotWait(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	peers := []string{taken.Addr().String(), "127.0.0.2:1", "127.0.0.3:1"}
	_, err = bus.Open(t.Context(), bus.Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Cluster: &bus.ClusterConfig{Name: "test", Listen: peers[0], Peers: peers, Authority: clusterSecret(t)},
	}, discard())
	if f := fault.From(err); f == nil || f.Code != fault.CodeConflict || f.Field != "cluster-listen" {
		t.Errorf("an address that somebody else has: %v", err)
	}
	never, err := natsserver.NewServer(&natsserver.Options{NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := bus.AwaitReady(over, never, func() *string { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a server that never takes connections: %v", err)
	}
	last := "no space left on device"
	if err := bus.AwaitReady(t.Context(), never, func() *string { return &last }); !fault.Is(err, fault.CodeStorageFull) || !strings.Contains(err.Error(), last) {
		t.Errorf("waiting for a server that could not start: %v", err)
	}
}

// A server that waits for the others does not know who may connect, and refuses nobody: a worker that were refused for long would end what it runs.
func TestAServerThatWaitsForTheOthersRefusesNobody(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	caller, password, err := c.buses[0].Callers().Create("shop", []string{"default"})
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := c.buses[0].Roster().CreateToken("one", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	at := "nats://" + c.cfgs[0].Listen
	cfg := bus.JoinConfig{DataDir: t.TempDir(), URL: at, Token: token, DismissAfter: time.Nanosecond}
	l, err := bus.Join(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(running) }()
	c.close(0, 1, 2)

	alone, over := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		b, err := bus.Open(alone, c.cfgs[0], discard())
		if err == nil {
			_ = b.Close(context.Background())
		}
		waited <- err
	}()
	for range 5 {
		insistently(t, "calling at the server that waits", func() error {
			nc, err := nats.Connect(at, patient, nats.UserInfo(caller.ID, password))
			if err == nil {
				nc.Close()
				return errors.New("somebody is let in of whom the server does not know")
			}
			if errors.Is(err, nats.ErrNoServers) {
				return err
			}
			if errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("a caller is refused: %v", err)
			}
			return nil
		})
	}
	other, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: at, Token: token}, discard())
	if err != nil {
		t.Errorf("a worker that starts is refused: %v", err)
	} else {
		other.Close(t.Context())
	}
	select {
	case err := <-ended:
		t.Errorf("a worker that had joined gives up: %v", err)
	default:
	}
	over()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("the server that waited: %v", err)
	}
	stop()
	l.Close(context.Background())
}

// Workers that join at the same time, at different servers, are all let in: that another one was first is no reason to refuse one.
func TestWorkersJoinAtOnce(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	var joining sync.WaitGroup
	for i := range 24 {
		b := c.buses[i%3]
		_, token, err := b.Roster().CreateToken("one", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		joining.Go(func() {
			l, err := bus.Join(bus.JoinConfig{DataDir: dir, URL: b.ListenURL(), Token: token}, discard())
			if err != nil {
				t.Error(err)
				return
			}
			l.Close(context.Background())
		})
	}
	joining.Wait()
	for i, b := range c.buses {
		for _, line := range audited(t, b) {
			if line["event"] == "refused" {
				t.Errorf("server %d: %v", i, line)
			}
		}
	}
}

// Whoever wants to be a server of the cluster and has no certificate of one, or one that has ended, gets nothing, and that is written down.
func TestWhoIsNoServerIsRefused(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	b, secret := c.buses[0], readAuthority(t, c.cfgs[0].DataDir)
	other, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	relay, err := tls.Listen("tcp", "127.0.0.1:0", b.ServersOnly())
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	go func() {
		for {
			conn, err := relay.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	server := pki.Subject{Role: pki.RoleServer, Name: "s"}
	for says, who := range map[string]struct {
		authority *pki.Authority
		subject   pki.Subject
		left      time.Duration
	}{
		"ended at":               {secret, server, -time.Second},
		"another authority":      {other, server, time.Hour},
		"is of tatami://worker/": {secret, pki.Subject{Role: pki.RoleWorker, Name: "nod_x"}, time.Hour},
	} {
		config := showing(t, who.authority, who.subject, who.left)
		for what, addr := range map[string]string{"the relay": relay.Addr().String(), "the routes": c.cfgs[0].Cluster.Listen} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			over := tls.Client(conn, config)
			_, err = over.Write([]byte("x"))
			if err == nil {
				_, err = over.Read(make([]byte, 1))
			}
			if err == nil {
				t.Errorf("%s: it is answered although its certificate %s", what, says)
			}
			conn.Close()
		}
		until(t, "it is written down: "+says, func() bool {
			return slices.ContainsFunc(audited(t, b), func(l map[string]string) bool {
				return l["event"] == "refused" && l["server"] != "" && strings.Contains(l["err"], says)
			})
		})
	}
}

// A server that yields leads nothing in the end, and the others lead it all.
func TestAServerYields(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	insistently(t, "yielding", func() error {
		c.buses[0].YieldAll(t)
		if left := c.buses[0].LeadsStreams(); len(left) > 0 {
			return fmt.Errorf("it leads %q", left)
		}
		return nil
	})
	insistently(t, "leading elsewhere", func() error {
		led := append(c.buses[1].LeadsStreams(), c.buses[2].LeadsStreams()...)
		slices.Sort(led)
		if led = slices.Compact(led); len(led) < 15 {
			return fmt.Errorf("the others lead %q", led)
		}
		return nil
	})
	if err := c.buses[0].Await(t.Context(), bus.StreamInvocations); err != nil {
		t.Error(err)
	}
	// It does where one of the others is gone, too: what that one led has come to the two that are left.
	c.close(2)
	insistently(t, "yielding to the other one", func() error {
		c.buses[0].YieldAll(t)
		if led := c.buses[1].LeadsStreams(); len(led) < 16 {
			return fmt.Errorf("the other one leads %q", led)
		}
		return nil
	})
}

// Of those that hold a stream the one leads that has all of it and is heard; several share what there is.
func TestWhoLeadsNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		others []bus.Holder
		turn   int
		want   string
	}{
		{[]bus.Holder{{"b", true, time.Second}, {"a", true, 0}}, 0, "a"},
		{[]bus.Holder{{"b", true, time.Second}, {"a", true, 0}}, 1, "b"},
		{[]bus.Holder{{"b", true, 2 * time.Second}, {"a", true, 0}}, 1, "a"},
		{[]bus.Holder{{"b", false, 0}, {"a", true, 0}}, 1, "a"},
		{[]bus.Holder{{"b", false, 0}, {"a", true, 3 * time.Second}}, 0, ""},
		{nil, 3, ""},
	} {
		got, err := bus.HeirOf(c.others, c.turn)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q leads, %v", c, got, err)
		}
	}
}

// One server leads at a time; when it ends, or is gone, another one does, with a higher epoch.
func TestOneServerLeads(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	type term struct {
		server int
		epoch  uint64
		ended  <-chan struct{}
	}
	terms := make(chan term, 10)
	var mu sync.Mutex
	leads, vanished := 0, false
	ends := make([]context.CancelFunc, 3)
	done := make([]chan struct{}, 3)
	for i, b := range c.buses {
		ctx, cancel := context.WithCancel(context.Background())
		ends[i], done[i] = cancel, make(chan struct{})
		go func() {
			defer close(done[i])
			_ = b.Lead(ctx, "", func(ctx context.Context, epoch uint64) error {
				mu.Lock()
				// One that vanished knows the time only, and is fenced by its epoch where that runs differently.
				if leads++; leads > 1 && !vanished {
					t.Errorf("%d servers lead at once", leads)
				}
				mu.Unlock()
				terms <- term{i, epoch, ctx.Done()}
				<-ctx.Done()
				mu.Lock()
				leads--
				mu.Unlock()
				return nil
			})
		}()
	}
	defer func() {
		for i := range ends {
			ends[i]()
			<-done[i]
		}
	}()
	next := func() term {
		t.Helper()
		select {
		case tm := <-terms:
			return tm
		case <-time.After(time.Minute):
			t.Fatal("nobody leads")
			return term{}
		}
	}
	first := next()
	ends[first.server]()
	<-done[first.server]
	second := next()
	if second.server == first.server || second.epoch <= first.epoch {
		t.Errorf("after %+v leads %+v", first, second)
	}
	// This one goes without a word: its key ends by itself.
	mu.Lock()
	vanished = true
	mu.Unlock()
	c.close(second.server)
	third := next()
	if third.server == second.server || third.epoch <= second.epoch {
		t.Errorf("after %+v leads %+v", second, third)
	}
	select {
	case <-second.ended:
	case <-time.After(time.Minute):
		t.Error("a server without the others goes on leading")
	}
}
