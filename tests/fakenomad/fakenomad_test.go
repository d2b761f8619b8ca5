package fakenomad_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/tests/fakenomad"
)

const patience = 30 * time.Second

func start(t *testing.T, cfg fakenomad.Config) (*fakenomad.Cluster, *api.Client) {
	t.Helper()
	c := fakenomad.New(cfg)
	t.Cleanup(c.Close)
	client, err := api.NewClient(&api.Config{Address: c.URL(), SecretID: fakenomad.Token})
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func job(count int) *api.Job {
	g := api.NewTaskGroup("worker", count).AddTask(api.NewTask("worker", "raw_exec").SetConfig("command", "/bin/true"))
	return api.NewServiceJob("workers", "workers", "global", 50).AddTaskGroup(g)
}

// A read that names an index answers when that has passed, and at the end of its time with what there is.
func TestReadsBlock(t *testing.T) {
	t.Parallel()
	_, c := start(t, fakenomad.Config{})
	_, meta, err := c.Nodes().List(nil)
	if err != nil || meta.LastIndex == 0 {
		t.Fatalf("%+v, %v", meta, err)
	}
	if _, again, err := c.Nodes().List(&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Millisecond}); err != nil || again.LastIndex != meta.LastIndex {
		t.Errorf("nothing changed: %+v, %v", again, err)
	}
	type answer struct {
		nodes []*api.NodeListStub
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		nodes, _, err := c.Nodes().List(&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: patience})
		got <- answer{nodes, err}
	}()
	nodes, _, err := c.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes().ToggleEligibility(nodes[1].ID, false, nil); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || a.nodes[1].SchedulingEligibility != api.NodeSchedulingIneligible {
		t.Errorf("it answers before the change: %v", a.err)
	}
}

// A stream begins at its index, or at the oldest event that is left.
func TestStreamsResume(t *testing.T) {
	t.Parallel()
	_, c := start(t, fakenomad.Config{Events: 5})
	if _, _, err := c.Jobs().Register(job(1), nil); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 8 {
		nodes, meta, err := c.Nodes().List(nil)
		if err != nil {
			t.Fatal(err)
		}
		last = meta.LastIndex
		if _, err := c.Nodes().ToggleEligibility(nodes[0].ID, nodes[0].SchedulingEligibility != api.NodeSchedulingEligible, nil); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[uint64]int{1: 5, last + 1: 1} {
		events, err := c.EventStream().Stream(t.Context(), map[api.Topic][]string{api.TopicNode: {"*"}}, from, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			select {
			case e := <-events:
				if e.Err != nil || e.Index < from || len(e.Events) != 1 || e.Events[0].Topic != api.TopicNode {
					t.Errorf("from %d, event %d: %+v", from, i, e)
				}
			case <-time.After(patience):
				t.Fatalf("from %d there are %d events, want %d", from, i, want)
			}
		}
	}
}

func TestWhoMayNot(t *testing.T) {
	t.Parallel()
	f, _ := start(t, fakenomad.Config{})
	for token, says := range map[string]string{"": "Permission denied", "nobody": "token not found", f.Allow("read-job"): "Permission denied"} {
		for _, path := range []string{"/v1/nodes", "/v1/event/stream?topic=Node:*", "/v1/var/nomad/jobs/x"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Nomad-Token", token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusForbidden {
				// A stream would not end.
				resp.Body.Close()
				t.Fatalf("%s with %q: %s", path, token, resp.Status)
			}
			var text strings.Builder
			_ = resp.Write(&text)
			resp.Body.Close()
			if !strings.Contains(text.String(), says) {
				t.Errorf("%s with %q: %s", path, token, text.String())
			}
		}
	}
}
