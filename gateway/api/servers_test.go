package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
)

// told is what the gateways of the servers saw that are up.
func told(views []bus.ServerView) Traffic {
	out := Traffic{Servers: map[string]v1.GatewayTraffic{}}
	for _, v := range views {
		if v.Up {
			out.Servers[v.Peer] = v1.GatewayTraffic{RPS: 3}
		}
	}
	return out
}

// An operator is told which servers are missing, since when, and what another loss would mean.
func TestWhatIsToldOfServers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	view := func(name string, up bool, heard time.Time, misses ...string) bus.ServerView {
		return bus.ServerView{ServerInfo: bus.ServerInfo{Name: name, Peer: name + ":6222"}, Server: "tatami-" + name, Up: up, Heard: heard, Misses: misses}
	}
	well := []bus.ServerView{view("a", true, now), view("b", true, now), view("c", true, now)}
	for name, c := range map[string]struct {
		views []bus.ServerView
		want  []string
	}{
		"all are there": {well, nil},
		"one is missing": {
			[]bus.ServerView{well[0], well[1], view("c", false, now.Add(-12*time.Second))},
			[]string{
				"1 of 3 servers are missing: c (for 12s); when one more fails nothing is stored any longer",
				"traffic is without that of c, which did not tell theirs",
			},
		},
		"one of five was never there": {
			append(well[:3:3], view("d", true, now), view("e", false, time.Time{})),
			[]string{"1 of 5 servers are missing: e (never heard); 1 more may fail", "traffic is without that of e, which did not tell theirs"},
		},
		"two are parted": {[]bus.ServerView{well[0], view("b", true, now, "c"), well[2]}, []string{"server b does not hear c"}},
	} {
		if d := cmp.Diff(c.want, serverWarnings(Servers(c.views, "tatami-a", told(c.views)), now)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	silent := told(well)
	delete(silent.Servers, "b:6222")
	if got, want := serverWarnings(Servers(well, "tatami-a", silent), now), "traffic is without that of b, which did not tell theirs"; len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q", got, want)
	}
	s := Servers(well, "tatami-b", told(well))
	if s[0].Leads || !s[1].Leads || s[2].State != v1.ServerUp || s[1].Traffic == nil || s[1].Traffic.RPS != 3 {
		t.Errorf("%+v", s)
	}
}
