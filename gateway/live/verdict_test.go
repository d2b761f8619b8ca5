package live

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	node := Node{ID: "nod_1", Name: "one", State: NodeReady, LastSeen: noon, Memory: Resource{Capacity: 1000, Used: 100}}
	fn := func(change func(*Function, *detail)) func(*picture) {
		return func(p *picture) {
			f := Function{Namespace: "default", Function: "hello"}
			d := &detail{}
			change(&f, d)
			p.Functions = append(p.Functions, f)
			p.more[f.ref()] = d
			p.Totals.Functions++
		}
	}
	ago := func(d time.Duration) *time.Time { v := noon.Add(-d); return &v }
	for name, c := range map[string]struct {
		set     func(*picture)
		level   Level
		text    string
		command string
	}{
		"idle":      {func(*picture) {}, LevelIdle, "Ready. 1 node, nothing deployed yet.", "tatami init hello"},
		"healthy":   {fn(func(*Function, *detail) {}), LevelOK, "Healthy. 1 node, 1 function, 0 instances, no traffic.", "tatami status"},
		"no node":   {func(p *picture) { p.Nodes, p.Totals.Nodes = nil, 0 }, LevelBad, "No node has reported.", "tatami doctor"},
		"scheduler": {func(p *picture) { p.Stale = ago(12 * time.Second) }, LevelBad, "The scheduler has not answered for 12 s; nodes and instances are as they were then.", "tatami status"},
		"lost":      {func(p *picture) { p.Nodes[0].State = NodeLost; p.Nodes[0].LastSeen = *ago(90 * time.Second) }, LevelBad, "Node one has not reported for 1 min.", "tatami node show one"},
		"left": {func(p *picture) {
			p.Nodes = append(p.Nodes, Node{Name: "two", State: NodeLeft, LastSeen: *ago(90 * time.Second)})
		}, LevelIdle, "Ready. 1 node, nothing deployed yet.", "tatami init hello"},
		"all left": {func(p *picture) { p.Nodes[0].State, p.Totals.Nodes = NodeLeft, 0 }, LevelBad, "No node has reported.", "tatami doctor"},
		"memory":   {func(p *picture) { p.Nodes[0].Memory.Used = 960 }, LevelWarn, "Node one uses 96 % of its memory.", "tatami inst ls"},
		"a server is missing": {func(p *picture) {
			p.Servers = []Server{{Name: "s1", Up: true, Leads: true}, {Name: "s2", Up: true}, {Name: "s3", Heard: ago(12 * time.Second)}}
		}, LevelWarn, "Server s3 has not been heard for 12 s; when one more fails nothing is stored any longer.", "tatami cluster ls"},
		"one of five is missing": {func(p *picture) {
			p.Servers = []Server{{Up: true}, {Up: true}, {Up: true}, {Up: true}, {Name: "10.0.0.5:6222"}}
		}, LevelWarn, "Server 10.0.0.5:6222 has not been heard since this one leads; 1 more server may fail.", "tatami cluster ls"},
		"servers that are parted": {func(p *picture) {
			p.Servers = []Server{{Name: "s1", Up: true}, {Name: "s2", Up: true, Misses: []string{"s3"}}, {Name: "s3", Up: true}}
		}, LevelWarn, "Server s2 does not hear s3.", "tatami cluster ls"},
		"a healthy cluster": {func(p *picture) {
			p.Servers = []Server{{Up: true}, {Up: true}, {Up: true}}
			p.Totals.Functions = 1
		}, LevelOK, "Healthy. 3 servers, 1 node, 1 function, 0 instances, no traffic.", "tatami status"},
		"pending":    {fn(func(f *Function, _ *detail) { f.Pending = "no node fits" }), LevelWarn, "hello waits: no node fits.", "tatami explain hello"},
		"waiting":    {fn(func(f *Function, _ *detail) { f.Pending, f.Waiting = "no node fits", 3 }), LevelBad, "hello: 3 invocations waiting. No node fits.", "tatami explain hello"},
		"failing":    {fn(func(f *Function, d *detail) { f.ErrorShare, d.lastMinute = 0.06, counts{100, 6, 0} }), LevelWarn, "hello fails: 6 % of its requests in the last minute.", "tatami logs hello"},
		"broken":     {fn(func(f *Function, d *detail) { f.ErrorShare, d.lastMinute = 1, counts{5, 5, 0} }), LevelBad, "hello fails: 100 % of its requests in the last minute.", "tatami logs hello"},
		"few errors": {fn(func(f *Function, d *detail) { f.ErrorShare, d.lastMinute = 1, counts{4, 4, 0} }), LevelOK, "Healthy. 1 node, 1 function, 0 instances, no traffic.", "tatami status"},
		"starts":     {fn(func(_ *Function, d *detail) { d.failedGrown = 2 }), LevelWarn, "hello: 2 instances did not get ready within the last 15 minutes.", "tatami logs hello"},
		"dead":       {fn(func(_ *Function, d *detail) { d.deadGrown = 1 }), LevelWarn, "hello: 1 new dead letter within the last 15 minutes.", "tatami queue dead hello"},
		"old queue":  {fn(func(f *Function, _ *detail) { f.Queue = QueueDepth{Pending: 7, Oldest: ago(3 * time.Minute)} }), LevelWarn, "hello: the oldest of 7 queued invocations has waited for 3 min.", "tatami queue show hello"},
		"hostile":    {func(p *picture) { p.Nodes[0].State, p.Nodes[0].Name = NodeLost, "a'; rm -rf /" }, LevelBad, "Node a'; rm -rf / has not reported for 0 s.", `tatami node show 'a'\''; rm -rf /'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &picture{Snapshot: Snapshot{Nodes: []Node{node}, Totals: Totals{Nodes: 1}}, more: map[functions.Ref]*detail{}}
			c.set(p)
			p.judge(noon)
			if want := (Verdict{c.level, c.text, c.command}); p.Verdict != want {
				t.Errorf("got  %+v\nwant %+v", p.Verdict, want)
			}
		})
	}
}

func TestVerdictIsTheWorst(t *testing.T) {
	t.Parallel()
	p := &picture{Snapshot: Snapshot{Nodes: []Node{{Name: "n", State: NodeReady}}, Totals: Totals{Nodes: 1}}, more: map[functions.Ref]*detail{}}
	for i := range 50 {
		f := Function{Namespace: "default", Function: "f" + string(rune('a'+i%26)) + string(rune('a'+i/26)), Pending: "no node fits"}
		if i == 49 {
			f.Waiting = 1
		}
		p.Functions = append(p.Functions, f)
		p.more[f.ref()] = &detail{}
	}
	p.judge(noon)
	if p.Verdict.Level != LevelBad || !strings.HasPrefix(p.Verdict.Text, "fxb") {
		t.Errorf("the verdict is %+v, want the one function for which an invocation waits", p.Verdict)
	}
	if n := len(p.Problems); n != maxProblems+1 || p.Problems[n-1].Text != "And 30 more." {
		t.Errorf("%d problems, the last %+v", n, p.Problems[n-1])
	}
}

func TestWeightedMedian(t *testing.T) {
	t.Parallel()
	ran := []Function{{P50: 100, RPS: 1}, {P50: 2, RPS: 98}, {P50: 50, RPS: 1}}
	if got := weightedMedian(ran); got != 2 {
		t.Errorf("median %v, want 2: nearly all requests take that", got)
	}
	if got := weightedMedian(nil); got != 0 {
		t.Errorf("median of nothing is %v", got)
	}
}
