package bus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/golden"
)

var testIdentity = Identity{
	Schema: 1, Mode: ModeStandalone, Node: "nod_abcdefghijklmnopqrstuvwxyz", ServerName: "tatami-abcdefghij",
	Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
}

func testConfig() Config {
	return Config{DataDir: "/var/lib/tatami"}.withDefaults().withDisk(100 * functions.GiB)
}

func TestTheServersConfigurationStays(t *testing.T) {
	t.Parallel()
	golden.Check(t, "server.conf", []byte(configText(testIdentity, testConfig(), passwords{"SYSTEM-PASSWORD", "TATAMI-PASSWORD"})))
	joined := testConfig()
	joined.Listen = "127.0.0.1:4222"
	golden.Check(t, "server-workers.conf", []byte(configText(testIdentity, joined, passwords{"SYSTEM-PASSWORD", "TATAMI-PASSWORD"})))
}

func TestTheStreamsAndBucketsStay(t *testing.T) {
	t.Parallel()
	golden.JSON(t, "layout.json", layoutOf(testConfig()))
}

// What all servers of a cluster hold is there while most of them run: of five, three.
func TestAllServersHoldEverything(t *testing.T) {
	t.Parallel()
	c := testConfig()
	c.Cluster = &ClusterConfig{Peers: make([]string, 5)}
	l := layoutOf(c)
	held := map[string]int{}
	for _, s := range l.Streams {
		held[s.Name] = s.Replicas
	}
	for _, b := range l.Buckets {
		held[b.Bucket] = b.Replicas
	}
	for _, o := range l.Objects {
		held[o.Bucket] = o.Replicas
	}
	for name, n := range held {
		if n != 5 {
			t.Errorf("%d of five servers hold %s", n, name)
		}
	}
}

func TestTheNamesStay(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "ns", Name: "fn"}
	id := functions.InvocationID("inv_" + ref.Hash() + "abcdefghijklmnopqrstuvwxyz")
	get := func(s string, ok bool) string {
		if !ok {
			t.Errorf("%s has no subject", id)
		}
		return s
	}
	names := []string{
		"accounts " + AccountSystem + " " + AccountTatami,
		"streams " + strings.Join(layoutOf(testConfig()).names(), " "),
		"invocation " + get(InvocationSubject(id)),
		"scheduled " + get(ScheduledSubject(id)),
		"dead " + get(DeadSubject(id)),
		"key " + KeySubject("00"),
		"function's " + FunctionInvocations(ref) + " " + FunctionScheduled(ref) + " " + FunctionDead(ref),
		"consumer " + ConsumerName(ref),
		"function " + FunctionKey(ref),
		"revision " + RevisionKey(ref, "rev_a") + " of " + RevisionsOf(ref),
		"quota " + QuotaKey("ns"),
		"trigger " + TriggerKey(ref) + " of " + TriggersIn("ns"),
		"node " + NodeKey("nod_a"),
		"result " + ResultKey(id),
		"artifact " + ArtifactObject("sha256:00"),
		"body " + BodyObject(id, "request"),
		"node's " + CommandSubject("nod_a") + " " + ReportSubject("nod_a") + " " + EndpointsSubject("nod_a"),
		"supply " + SupplySubject("nod_a") + " answered on " + inboxOf("nod_a"),
		"certify " + CertifySubject("nod_a"),
		"all " + SubjectDemand + " " + SubjectReports + " " + SubjectEndpoints,
		"wanted " + SubjectEndpointsWanted + " " + SubjectReportsWanted,
		"scheduler " + SubjectOverview + " " + SubjectExplain + " " + SubjectCompact,
		"headers " + HeaderAttempt + " " + HeaderOrder + " " + HeaderSchedule + " " + HeaderScheduleTarget,
	}
	golden.Check(t, "names.txt", []byte(strings.Join(names, "\n")+"\n"))
}

func TestTheRecordsStay(t *testing.T) {
	t.Parallel()
	ref := functions.Ref{Namespace: "ns", Name: "fn"}
	id := functions.InvocationID("inv_" + ref.Hash() + "abcdefghijklmnopqrstuvwxyz")
	at := func(s int) time.Time { return time.Date(2026, 1, 2, 3, 4, s, 500, time.UTC) }
	retries := 2
	attempt := functions.Attempt{Number: 1, Revision: "rev_a", Instance: "ins_a", Started: at(6), Ended: at(7), Status: 503,
		Error: "function-crashed", Message: "it crashed", Cold: true}
	inv := functions.Invocation{Schema: 1, ID: id, Namespace: "ns", Function: "fn", Trigger: "http", Method: "POST", Path: "/a", Query: "b=c",
		Header: map[string][]string{"Content-Type": {"text/plain"}}, Body: []byte("body"),
		BodyRef:  &functions.BodyRef{Object: BodyObject(id, "request"), Size: 4, SHA256: "00"},
		Accepted: at(5), Deadline: at(50), Attempt: 2, History: []functions.Attempt{attempt}, RedriveOf: id, OrderingKey: "k"}
	config := functions.Config{Command: []string{"/a"}, Env: map[string]string{"A": "b"}, Labels: map[string]string{"l": "v"},
		Readiness: functions.Readiness{Path: "/ready"}, ReadOnlyRoot: true}.WithDefaults()
	config.Queue.Retries = &retries
	envelope := Envelope{Schema: 1, Boot: "boot", Node: "nod_a", Instance: "ins_a", Sequence: 7, Epoch: 1}
	records := []any{
		testIdentity,
		functions.Function{Schema: 1, Namespace: "ns", Name: "fn", Live: "rev_a", Candidate: "rev_b", Previous: "rev_c",
			Revisions: []functions.RevisionID{"rev_a"}, Generation: 3, Created: at(1), Updated: at(2)},
		functions.Revision{Schema: 1, ID: "rev_a", Namespace: "ns", Function: "fn", Created: at(1), State: functions.RevisionReady,
			Artifact: functions.Artifact{Digest: "sha256:00", Reference: "reg/img", Name: "dir", Architecture: "amd64", Size: 9},
			Config:   config, Reason: "because", Logs: []string{"line"}},
		functions.Quota{Schema: 1, Namespace: "ns", CPU: 1, Memory: 2, Instances: 3, Functions: 4, Concurrent: 5, Rate: 6},
		inv,
		functions.Result{Schema: 1, ID: id, Namespace: "ns", Function: "fn", State: functions.StateDead, Reason: "because",
			Attempts: []functions.Attempt{attempt}, Status: 503, Header: map[string][]string{"A": {"b"}}, Body: []byte("x"),
			BodyRef: &functions.BodyRef{Object: "o", Size: 1, SHA256: "00"}, Accepted: at(5), Finished: at(9)},
		functions.KeyRecord{Schema: 1, ID: id, Namespace: "ns", Function: "fn", Request: "00", State: functions.KeyAnswered, Created: at(5), Until: at(50),
			Status: 200, Header: map[string][]string{"A": {"b"}}, Body: []byte("x"), BodyRef: &functions.BodyRef{Object: "o", Size: 1, SHA256: "00"}},
		functions.DeadLetter{Schema: 1, Invocation: inv, Reason: "because", Died: at(9)},
		Demand{Envelope: envelope, Gateway: "g", Functions: []FunctionDemand{{Namespace: "ns", Function: "fn", Waiting: 1, Backlog: 2, InFlight: 3, Concurrency: 4.5, Quiet: functions.Duration(time.Second)}}},
		EndpointTable{Envelope: envelope, Full: true, Listener: &Listener{Address: "127.0.0.1:1", Token: "t"}, Endpoints: []Endpoint{{Instance: "ins_a", Node: "nod_a", Namespace: "ns", Function: "fn",
			Revision: "rev_a", Slots: 10, Started: at(1), Ready: at(2)}},
			Removed: []Departure{{Instance: "ins_b", State: functions.InstanceFailed, Reason: "because",
				Failed: &StartFailure{Namespace: "ns", Function: "fn", Revision: "rev_a", Logs: []string{"line"}}}}},
		Report{Envelope: envelope, Full: true,
			State: NodeState{Name: "mat", Architecture: "amd64", Capacity: functions.Resources{CPU: 2}, Allocatable: functions.Resources{CPU: 1}, CPUUsed: 3,
				MemoryUsed: 4, Draining: true, Labels: map[string]string{"l": "v"}, Artifacts: []string{"sha256:00"}, ArtifactsKept: true},
			Instances: []InstanceReport{{Instance: "ins_a", Namespace: "ns", Function: "fn", Revision: "rev_a", State: functions.InstanceReady, Reason: "because",
				Exit: &functions.Exit{Code: 1}, Logs: []string{"line"}, Since: at(1), Started: at(2), Slots: 10, Held: 1, LastUsed: at(3),
				Reserved: functions.Resources{CPU: 1}, Adopted: true, PID: 7}}},
		functions.Trigger{Schema: 1, Namespace: "ns", Name: "tr", Function: "fn", Path: "/", Filters: []functions.Filter{{Exact: map[string]string{"type": "t"}}},
			Event: &functions.EventSource{}, Created: at(1), Updated: at(2)},
		functions.TriggerState{Schema: 1, Namespace: "ns", Name: "tr", Last: at(3), Firings: []functions.Firing{{Scheduled: at(3), Fired: at(4), Outcome: "fired", Invocation: id}}},
		functions.NodeSettings{Schema: 1, Node: testIdentity.Node, Intent: functions.NodeCordoned, Reason: "because"},
		functions.IdleTimes{Schema: 1, Namespace: "ns", Function: "fn", Counts: []byte{0, 2, 1}, Logs: 3.5, Cycle: functions.Duration(time.Minute), Hits: 1, Tries: 2,
			Begun: at(1), Ended: at(2), Start: functions.Duration(time.Second), Saved: at(3), Price: 8},
		Command{Envelope: envelope, Action: ActionStart, Reason: "because", Asked: at(1), Deadline: at(2)},
	}
	var out strings.Builder
	for _, r := range records {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		out.WriteByte('\n')
	}
	golden.Check(t, "records.json", []byte(out.String()))
}

func TestIdentityIsWrittenOnceAndHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := loadIdentity(dir, ModeStandalone, "", testIdentity.Created)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadIdentity(dir, ModeStandalone, "", time.Now())
	if err != nil || second != first {
		t.Fatalf("got %+v, error %v; want %+v", second, err, first)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("writing left %v behind", entries)
	}
	text := func(edit func(*Identity)) string {
		id := first
		edit(&id)
		data, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for name, c := range map[string]struct{ data, says, hint string }{
		"newer":      {text(func(i *Identity) { i.Schema = 2 }), "schema 2", "newer tatami"},
		"cluster":    {text(func(i *Identity) { i.Mode = "cluster" }), `mode "cluster"`, "tatami server --data-dir"},
		"no node":    {text(func(i *Identity) { i.Node = "" }), "incomplete", "tatami up --data-dir"},
		"no json":    {"{", "cannot be read", "tatami up --data-dir"},
		"no content": {"", "cannot be read", "tatami up --data-dir"},
	} {
		if err := os.WriteFile(filepath.Join(dir, IdentityFile), []byte(c.data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadIdentity(dir, ModeStandalone, "", time.Now())
		f := fault.From(err)
		if f == nil || !strings.Contains(f.Message, c.says) || !strings.Contains(f.Hint, c.hint) {
			t.Errorf("%s: got %+v", name, f)
		}
	}
	// A worker's directory is not a server's, nor the other way round.
	for mode, of := range map[string]string{ModeStandalone: ModeWorker, ModeWorker: ModeStandalone} {
		dir := t.TempDir()
		id, err := loadIdentity(dir, of, "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, err = loadIdentity(dir, mode, "", time.Now())
		if f := fault.From(err); f == nil || f.Code != fault.CodeConflict || f.Hint != "run: tatami "+verbOf(of)+" --data-dir "+dir {
			t.Errorf("a directory of mode %s opened in %s: %+v", of, mode, f)
		}
		if again, err := loadIdentity(dir, of, "", time.Now()); err != nil || again != id {
			t.Errorf("got %+v, error %v; want %+v", again, err, id)
		}
	}
	// A store whose identity is gone is nobody's: it is not taken for a new one.
	if err := os.Remove(filepath.Join(dir, IdentityFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, storeDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIdentity(dir, ModeStandalone, "", time.Now()); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a store without identity: %v", err)
	}
}

func TestDurabilityIsJudgedByFilesystemAndOptions(t *testing.T) {
	t.Parallel()
	const line = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
	for name, c := range map[string]struct {
		magic int64
		info  string
		says  string
	}{
		"ext4":        {0xef53, line, ""},
		"unknown":     {0xef53, "", ""},
		"no alloc":    {0xef53, line + ",noauto_da_alloc", "noauto_da_alloc"},
		"no barrier":  {0xef53, line + ",nobarrier", "without write barriers"},
		"barrier 0":   {0xef53, line + ",barrier=0", "without write barriers"},
		"ext3":        {0xef53, strings.Replace(line, "ext4", "ext3", 1), "(ext3)"},
		"tmpfs":       {0x01021994, strings.Replace(line, "ext4", "tmpfs", 1), "(tmpfs)"},
		"other mount": {0xef53, strings.Replace(line, "254:0", "254:1", 1) + ",nobarrier", ""},
		"xfs, hidden": {0x58465342, "", "of type 0x58465342"},
	} {
		got := judge("/data", c.magic, 254, 0, c.info)
		if (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: got %q, want %q within", name, got, c.says)
		}
	}
}
