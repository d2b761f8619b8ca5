package standin

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Outcome is what becomes of a revision that is deployed.
type Outcome struct {
	// Hold leaves it pending.
	Hold bool
	// Reason fails it, with Logs.
	Reason string
	Logs   []string
}

// Fixed names of the stand-in's one node and one instance.
const (
	NodeID     functions.NodeID     = "nod_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	InstanceID functions.InstanceID = "ins_bbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// Scheduler answers for the scheduler.
type Scheduler struct {
	t   testing.TB
	bus *bus.Bus

	// answering are the answers under way.
	answering sync.WaitGroup

	mu       sync.Mutex
	outcomes map[string]Outcome
	silent   bool
}

func newScheduler(t testing.TB, b *bus.Bus) *Scheduler {
	return &Scheduler{t: t, bus: b, outcomes: map[string]Outcome{}}
}

// Set says what becomes of the revisions of a function, from its next deploy on. Without it they become ready.
func (s *Scheduler) Set(function string, o Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes[function] = o
}

// Silence makes the scheduler not answer.
func (s *Scheduler) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

func (s *Scheduler) run(ctx context.Context) {
	defer s.answering.Wait()
	overview, err := s.bus.Conn().Subscribe(bus.SubjectOverview, func(m *nats.Msg) {
		// The scheduler knows by heart what this asks the store for: of many who ask at once none is to wait for the others'.
		s.answering.Go(func() { s.answer(m, s.overview()) })
	})
	if err != nil {
		s.t.Error(err)
		return
	}
	explain, err := s.bus.Conn().Subscribe(bus.SubjectExplain, func(m *nats.Msg) { s.answer(m, explanation(m.Data)) })
	if err != nil {
		s.t.Error(err)
		return
	}
	compact, err := s.bus.Conn().Subscribe(bus.SubjectCompact, func(m *nats.Msg) {
		s.answer(m, bus.CompactPlan{
			Schema: bus.Schema, Nodes: []bus.CompactNode{{Node: NodeID, Name: "mat", Reserved: functions.Resources{CPU: 250, Memory: 192 * functions.MiB, Instances: 1}}},
			Moves: []bus.CompactMove{{Instance: InstanceID, Namespace: "default", Function: "hello", From: "mat", To: "rush"}},
		})
	})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() {
		_ = compact.Unsubscribe()
		_ = overview.Unsubscribe()
		_ = explain.Unsubscribe()
	}()
	err = s.bus.Functions().Watch(ctx, "", func(e bus.Event[functions.Function]) {
		if e.Value.Candidate != "" && !e.Deleted {
			s.Settle(ctx, e.Value.Ref())
		}
	})
	if err != nil {
		s.t.Error(err)
	}
}

func (s *Scheduler) answer(m *nats.Msg, v any) {
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = m.Respond(b)
}

// Settle does with a function's candidate what Set said: the revision is written before the function, as the scheduler does it.
func (s *Scheduler) Settle(ctx context.Context, ref functions.Ref) {
	s.mu.Lock()
	o := s.outcomes[ref.Name]
	s.mu.Unlock()
	if o.Hold {
		return
	}
	fn, at, err := s.bus.Functions().Get(ctx, bus.FunctionKey(ref))
	if err != nil || fn.Candidate == "" {
		return // changed meanwhile: another event follows
	}
	key := bus.RevisionKey(ref, fn.Candidate)
	rev, _, err := s.bus.Revisions().Get(ctx, key)
	if err != nil {
		return
	}
	if o.Reason != "" {
		if rev.State == functions.RevisionPending {
			rev.State = functions.RevisionFailed
		}
		rev.Reason, rev.Logs = o.Reason, o.Logs
		fn.Candidate = ""
	} else {
		rev.State, rev.Reason, rev.Logs = functions.RevisionReady, "", nil
		fn.Previous, fn.Live, fn.Candidate = fn.Live, fn.Candidate, ""
	}
	if _, err := s.bus.Revisions().Put(ctx, key, rev); err != nil {
		s.t.Error(err)
	}
	fn.Generation++
	_, _ = s.bus.Functions().Update(ctx, bus.FunctionKey(ref), fn, at)
}

func (s *Scheduler) overview() bus.Overview {
	now := time.Now().UTC()
	started := now.Add(-90 * time.Second)
	const cpu, memory = 4000, 2 * functions.GiB
	reserved := functions.Resources{CPU: 250, Memory: 192 * functions.MiB, Instances: 1}
	out := bus.Overview{
		Schema: bus.Schema, At: now, Epoch: bus.Epoch,
		Nodes: []bus.NodeStatus{{
			ID: NodeID, LastSeen: now, Reserved: reserved,
			NodeState: bus.NodeState{
				Name: "mat", Architecture: "amd64", CPUUsed: 300, MemoryUsed: functions.GiB,
				Capacity:    functions.Resources{CPU: cpu, Memory: memory, Instances: 100},
				Allocatable: functions.Resources{CPU: cpu, Memory: memory, Instances: 100},
			},
		}},
		Instances: []bus.InstanceStatus{{
			Node: NodeID, Placement: "the only node that fits",
			InstanceReport: bus.InstanceReport{
				Instance: InstanceID, Namespace: "default", Function: "hello", Revision: "rev_cccccccccccccccc", State: functions.InstanceReady,
				Since: started, Started: started, Slots: 10, Reserved: reserved, PID: 4711,
				Usage:  functions.Usage{CPU: functions.Duration(time.Second), Memory: 12 * functions.MiB, PIDs: 5},
				Phases: functions.Phases{Create: functions.Duration(9 * time.Millisecond), Ready: functions.Duration(3 * time.Millisecond)},
			},
		}},
		Functions: []bus.FunctionStatus{{Namespace: "default", Function: "hello", Desired: 1, Ready: 1, Reason: "one invocation at a time"}},
		Namespaces: []bus.NamespaceStatus{{
			Namespace: "default", Functions: 1, Used: reserved,
		}},
	}
	if set, _, err := s.bus.Nodes().Get(context.Background(), bus.NodeKey(NodeID)); err == nil {
		n := &out.Nodes[0]
		n.Intent, n.IntentReason, n.Cordoned = set.Intent, set.Reason, set.Intent == functions.NodeCordoned
		if set.Intent == functions.NodeDrained {
			n.Drain = &bus.NodeDrain{From: 3, Left: 1, Waits: []string{"1 instance of hello: waits for replacements elsewhere to be ready"}}
		}
	}
	return out
}

func explanation(data []byte) bus.Explanation {
	var q bus.ExplainRequest
	if json.Unmarshal(data, &q) != nil {
		return bus.Explanation{Schema: bus.Schema}
	}
	subject := string(q.Instance)
	if q.Function != nil {
		subject = q.Function.String()
	}
	return bus.Explanation{
		Schema: bus.Schema, Subject: subject, Found: q.Function != nil || q.Instance == InstanceID,
		Lines: []bus.ExplanationLine{{At: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), Text: "one instance wanted"}},
		Kinds: []bus.KindVerdict{
			{Kind: "4000m cpu, 2 GiB, amd64", Nodes: 1, Fits: 1, Reason: "1 with room"},
			{Kind: "4000m cpu, 1 GiB, amd64, zone b", Nodes: 212, Reason: "200 short of memory (512 MiB needed, at most 300 MiB free), 12 cordoned"},
		},
		Nodes: []bus.NodeVerdict{{Node: NodeID, Name: "mat", Chosen: true, Reason: "tightest fit"}},
		Try:   []string{"tatami node ls"},
	}
}
