package bus_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/internal/bus"
)

// Each server knows which of its peers are there, by the names that they tell, since when one is missing, and who does not hear whom.
func TestWhichServersAreThere(t *testing.T) {
	t.Parallel()
	v := newViews()
	peers := []string{"10.0.0.1:6222", "10.0.0.2:6222", "10.0.0.3:6222"}
	for i, n := range v.names {
		v.of[n].Introduce(bus.ServerInfo{Name: "machine-" + n, Peer: peers[i]})
	}
	type server struct {
		Name, Peer string
		Up, Heard  bool
		Misses     []string
	}
	want := func(when, of string, want ...server) {
		t.Helper()
		var got []server
		for _, s := range v.of[of].Servers(v.now, peers...) {
			got = append(got, server{s.Name, s.Peer, s.Up, !s.Heard.IsZero(), s.Misses})
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	nothing := func() {}
	want("before anybody was heard", "a", server{"machine-a", peers[0], true, true, nil}, server{peers[1], peers[1], false, false, nil}, server{peers[2], peers[2], false, false, nil})
	v.pass(300*time.Millisecond, nothing)
	want("all have just come", "a", server{"machine-a", peers[0], true, true, nil}, server{"machine-b", peers[1], true, true, nil}, server{"machine-c", peers[2], true, true, nil})
	v.pass(time.Second, nothing)
	want("all are there", "a", server{"machine-a", peers[0], true, true, nil}, server{"machine-b", peers[1], true, true, nil}, server{"machine-c", peers[2], true, true, nil})
	between := []string{"b", "c"}
	v.lost = func(from, to string) bool {
		return from != to && slices.Contains(between, from) && slices.Contains(between, to)
	}
	v.pass(5*time.Second, nothing)
	want("two do not hear each other", "a",
		server{"machine-a", peers[0], true, true, nil}, server{"machine-b", peers[1], true, true, []string{"machine-c"}}, server{"machine-c", peers[2], true, true, []string{"machine-b"}})
	v.lost = func(from, _ string) bool { return from == "c" }
	v.pass(5*time.Second, nothing)
	want("one is gone", "a", server{"machine-a", peers[0], true, true, nil}, server{"machine-b", peers[1], true, true, nil}, server{"machine-c", peers[2], false, true, nil})
}
