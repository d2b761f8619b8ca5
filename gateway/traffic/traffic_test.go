package traffic

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// member is a server of a cluster, as its gateway sees it.
type member struct {
	nc      *nats.Conn
	name    string
	servers []bus.ServerView
}

func (m member) Conn() *nats.Conn          { return m.nc }
func (m member) Boot() string              { return "run of " + m.name }
func (m member) Identity() bus.Identity    { return bus.Identity{ServerName: m.name} }
func (m member) Servers() []bus.ServerView { return m.servers }

// cluster is three servers on one NATS server.
type cluster struct {
	t       *testing.T
	views   []bus.ServerView
	traffic map[string]*Traffic
	conn    *nats.Conn
	stop    func(name string)
}

func newCluster(t *testing.T, cfg Config, did map[string][]invoke.FunctionStats) *cluster {
	// Its own account would listen to dozens of subjects: those of the gateways are counted below.
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoSystemAccount: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	c := &cluster{t: t, traffic: map[string]*Traffic{}}
	for _, name := range []string{"a", "b", "c"} {
		c.views = append(c.views, bus.ServerView{ServerInfo: bus.ServerInfo{Name: "machine " + name, Peer: name + ":6222"}, Server: name, Up: true})
	}
	stops := map[string]func(){}
	c.stop = func(name string) { stops[name]() }
	for _, v := range c.views {
		nc, err := nats.Connect(srv.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		c.conn = nc
		tr := New(cfg, member{nc, v.Server, c.views}, func() []invoke.FunctionStats { return did[v.Server] }, slog.New(slog.DiscardHandler))
		c.traffic[v.Server] = tr
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := tr.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		stops[v.Server] = sync.OnceFunc(func() { cancel(); running.Wait() })
		t.Cleanup(func() { stops[v.Server](); nc.Close() })
		// It answers once the server knows that it listens.
		for deadline := time.Now().Add(time.Minute); srv.NumSubscriptions() < uint32(len(c.traffic)); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nobody listens")
			}
		}
	}
	return c
}

func stats(function string, requests uint64, durations ...[2]uint64) invoke.FunctionStats {
	return invoke.FunctionStats{Namespace: "default", Function: function, Requests: requests, Errors: 1, ColdStarts: 2, InFlight: 3, Waiting: 4, RPS: 0.5, Durations: durations}
}

// Whichever server asks hears all of them, in any number of parts.
func TestAllGatewaysTell(t *testing.T) {
	t.Parallel()
	did := map[string][]invoke.FunctionStats{
		"a": {stats("one", 10, [2]uint64{100, 10})},
		"b": {stats("one", 5, [2]uint64{100, 1}, [2]uint64{200, 4}), stats("three", 7), stats("two", 6)},
		"c": nil,
	}
	c := newCluster(t, Config{Patience: time.Minute, PartSize: 2}, did)
	for asker, tr := range c.traffic {
		each := tr.Ask(t.Context())
		var want []Gateway
		for _, v := range c.views {
			want = append(want, Gateway{Server: v.Server, Boot: "run of " + v.Server, Peer: v.Peer, Name: v.Name, Own: v.Server == asker, Told: true, Functions: did[v.Server]})
		}
		if d := cmp.Diff(want, each); d != "" {
			t.Errorf("%s hears (-want +got):\n%s", asker, d)
		}
		sum := Sum(each)
		if len(sum) != 3 || sum[0].Function != "one" || sum[1].Function != "three" || sum[2].Function != "two" {
			t.Fatalf("%+v", sum)
		}
		one := sum[0]
		if one.Requests != 15 || one.Errors != 2 || one.ColdStarts != 4 || one.InFlight != 6 || one.Waiting != 8 || one.RPS != 1 {
			t.Errorf("%+v", one)
		}
		if d := cmp.Diff(invoke.Durations{{100, 11}, {200, 4}}, one.Durations); d != "" {
			t.Errorf("durations (-want +got):\n%s", d)
		}
		if total := each[1].Total(); total.Requests != 18 || total.RPS != 1.5 || total.InFlight != 9 {
			t.Errorf("%+v", total)
		}
	}
}

// A gateway that does not answer is waited for only so long, and is told from one that did nothing.
func TestAGatewayThatDoesNotTell(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{}, map[string][]invoke.FunctionStats{"a": {stats("one", 10)}, "c": {stats("one", 4)}})
	c.stop("b")
	var each []Gateway
	// On a busy machine the other one may need longer than is waited.
	for patience := 50 * time.Millisecond; len(each) == 0 || !each[2].Told; patience *= 2 {
		c.traffic["a"].cfg.Patience = patience
		if each = c.traffic["a"].Ask(t.Context()); len(each) != 3 || !each[0].Told || each[1].Told || each[1].Name != "machine b" {
			t.Fatalf("%+v", each)
		}
	}
	if sum := Sum(each); len(sum) != 1 || sum[0].Requests != 14 {
		t.Errorf("%+v", sum)
	}
}

// One that is known to be missing is not waited for.
func TestAMissingServerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Patience: time.Hour}, map[string][]invoke.FunctionStats{})
	c.stop("b")
	c.views[1].Up = false
	if each := c.traffic["a"].Ask(t.Context()); each[1].Told || !each[2].Told {
		t.Errorf("%+v", each)
	}
}

// Half an answer is none, and one that comes twice counts once.
func TestPartsOfAnAnswer(t *testing.T) {
	t.Parallel()
	part := func(boot string, n, of int, function string) *bus.TrafficPart {
		return &bus.TrafficPart{Boot: boot, Part: n, Parts: of, Functions: []bus.FunctionTraffic{{Function: function}}}
	}
	a := &answer{boot: "1", parts: 2, came: map[int]bool{}}
	for _, p := range []*bus.TrafficPart{part("1", 1, 2, "x"), part("1", 1, 2, "x"), part("2", 0, 2, "y"), part("1", 0, 3, "y"), part("1", 2, 2, "y"), part("1", -1, 2, "y")} {
		if a.take(p); a.whole() || len(a.functions) != 1 {
			t.Fatalf("%+v after %+v", a, p)
		}
	}
	if a.take(part("1", 0, 2, "y")); !a.whole() || len(a.functions) != 2 {
		t.Errorf("%+v", a)
	}
	var none *answer
	if none.whole() {
		t.Error("no answer is one")
	}
}

// Where a server stands alone nothing is asked, and what its gateway says is said as it is.
func TestAlone(t *testing.T) {
	t.Parallel()
	own := []invoke.FunctionStats{{Namespace: "default", Function: "one", Codes: map[string]uint64{"200": 1}}}
	tr := New(Config{}, member{name: "a"}, func() []invoke.FunctionStats { return own }, slog.New(slog.DiscardHandler))
	each := tr.Ask(t.Context())
	if d := cmp.Diff([]Gateway{{Server: "a", Boot: "run of a", Own: true, Told: true, Functions: own}}, each); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(own, Sum(each)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What a server of another version says is not taken for an answer, and does not end the question.
func TestAnAnswerThatIsNotUnderstood(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Patience: time.Minute}, map[string][]invoke.FunctionStats{"b": {stats("one", 1)}})
	sub, err := c.conn.Subscribe(bus.SubjectTrafficWanted, func(m *nats.Msg) {
		data, _ := json.Marshal(bus.TrafficPart{Schema: bus.Schema + 1, Server: "b"})
		_ = m.Respond(data)
		_ = m.Respond([]byte("{"))
	})
	if err == nil {
		err = c.conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if each := c.traffic["a"].Ask(t.Context()); !each[1].Told || len(each[1].Functions) != 1 || !each[2].Told {
		t.Errorf("%+v", each)
	}
}
