//go:build e2e

package e2e

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Functions with egress reach the internet, by name too, and none of what is theirs not to reach; those without reach nothing. What is changed on the
// machine for that is put back, after kill -9 too.
func TestEgress(t *testing.T) {
	for path, flags := range map[string][]string{"containerd": {"--sandbox-pool", "0", "--precreated", "0"}, "attach": {"--sandbox-pool", "4"}} {
		t.Run(path, func(t *testing.T) {
			// Each has a world of its own, and waits most of the time for what does not answer.
			t.Parallel()
			testEgress(t, path, flags)
		})
	}
}

func testEgress(t *testing.T, path string, flags []string) {
	w := outsideWorld(t)
	w.operatorTable()
	s := harness.Start(t, harness.WithNetwork(w.host), harness.WithFlags(append(flags,
		"--egress-dns", internetAddr, "--public-addr", hostAddr+":8080", "--control-addr", hostAddr+":8081", "--nats-listen", "127.0.0.1:4222")...))
	s.Public = hostAddr + ":8080"
	for _, addr := range []string{internetAddr + ":80", metadataAddr + ":80", privateAddr + ":80", hostAddr + ":9000", hostAddr + ":8081", "127.0.0.1:4222"} {
		eventually(t, 10*time.Second, "the machine itself reaches "+addr+", or what follows would show nothing", func() bool { return reaches(w.host, addr) })
	}
	// What is out of reach may answer nothing: a function waits two seconds for it, and longer for what it should reach.
	dialFor := func(fn, addr, ms string) string {
		t.Helper()
		resp, body, err := s.TryDo("GET", "/fn/"+fn+"/dial?ms="+ms+"&addr="+addr, "", nil)
		switch {
		case err != nil || resp.Header.Get("Tatami-Error") != "":
			t.Errorf("%s: %v %s %v", fn, resp, body, err)
			return "not known"
		case resp.StatusCode == http.StatusOK:
			return "connected"
		}
		return strings.TrimSpace(body)
	}
	dial := func(fn, addr string) string { return dialFor(fn, addr, "2000") }
	reached := func(fn, addr string) string { return dialFor(fn, addr, "30000") }

	if tables := w.tables(); !slices.Equal(tables, []string{"operator"}) || w.forwarding() != "0" {
		t.Errorf("changed before any function has egress: tables %v, forwarding %s", tables, w.forwarding())
	}
	s.Deploy("none", "probe", "")
	s.Deploy("one", "probe", "egress: internet\nscale: {min: 1, max: 1}\n")
	s.Deploy("two", "probe", "egress: internet\nscale: {min: 1, max: 1}\n")
	if out := s.Must("fn", "show", "one").Stdout; !strings.Contains(out, "internet") {
		t.Errorf("fn show does not tell of the egress:\n%s", out)
	}
	// Where there is a pool, a link waits for the next function, or two.
	ready := map[string][]int{"containerd": {0}, "attach": {1, 2}}[path]
	linked := func(n int) {
		t.Helper()
		eventually(t, 20*time.Second, "functions and pool have their links", func() bool { return slices.Contains(ready, len(w.innerAddrs())-n) })
	}
	check := func(when string) {
		t.Helper()
		// What is not to be reached is waited for at once.
		var dials sync.WaitGroup
		for _, addr := range []string{internetAddr + ":80", internetName + ":80"} {
			if got := reached("one", addr); got != "connected" {
				t.Errorf("%s: %s is not reached: %s", when, addr, got)
			}
			dials.Go(func() {
				if got := dial("none", addr); got == "connected" {
					t.Errorf("%s: without egress %s is reached", when, addr)
				}
			})
		}
		if from := w.lastSeen(); from != hostAddr {
			t.Errorf("%s: the internet sees %s", when, from)
		}
		for _, addr := range []string{
			metadataAddr + ":80", privateAddr + ":80", hostAddr + ":9000", hostAddr + ":8080", hostAddr + ":8081", hostAddr + ":4222",
			"127.0.0.1:4222", "10.119.0.0:9000", "10.119.0.2:8081", "[fd00:ec2::254]:80", "[::ffff:" + hostAddr + "]:8081",
		} {
			dials.Go(func() {
				if got := dial("one", addr); got == "connected" {
					t.Errorf("%s: %s is reached", when, addr)
				}
			})
		}
		dials.Wait()
		linked(2)
		inner := w.innerAddrs()
		var own atomic.Int32
		for _, a := range inner {
			dials.Go(func() {
				if dial("one", a+":8080") == "connected" {
					own.Add(1)
				}
			})
			w.outside.Must(func() error { return route(a+"/32", hostAddr) })
			dials.Go(func() {
				if reaches(w.outside, a+":8080") {
					t.Errorf("%s: %s is reached from outside", when, a)
				}
			})
		}
		dials.Wait()
		if n := own.Load(); n != 1 {
			t.Errorf("%s: of %v a function reaches %d; itself alone is right", when, inner, n)
		}
	}
	check("at first")
	if path == "attach" {
		eventually(t, 60*time.Second, "a function with egress starts in a sandbox made ahead that has its link", func() bool {
			s.Deploy("three", "probe", "egress: internet\nenv: {AGAIN: "+time.Now().Format(time.StampNano)+"}\n")
			got := reached("three", internetAddr+":80")
			list := instances(t, s, "three")
			return got == "connected" && len(list) > 0 && list[0].Phases.Path == path && list[0].Phases.PathReason == ""
		})
		s.Must("delete", "three", "--yes")
		linked(2)
	}

	// Another program throws all rules away.
	w.host.Must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	eventually(t, 10*time.Second, "the rules are written again", func() bool { return len(w.tables()) == 1 })
	check("after the rules were flushed")
	w.operatorTable()

	s.Kill()
	s.Launch()
	check("after kill -9")

	s.Must("delete", "two", "--yes")
	linked(1)
	s.Kill()
	s.Launch()
	s.Stop()
	if left := w.innerAddrs(); len(left) > 0 {
		t.Errorf("links left behind: %v", left)
	}
	if tables := w.tables(); !slices.Equal(tables, []string{"operator"}) {
		t.Errorf("the packet filter's tables are %v", tables)
	}
	if f := w.forwarding(); f != "0" {
		t.Errorf("forwarding is left %s", f)
	}
}

// A machine whose settings do not allow egress refuses the deploy, and says why.
func TestEgressRefused(t *testing.T) {
	w := outsideWorld(t)
	w.host.Must(func() error { return device("up0", "10.119.7.1/24") })
	s := harness.Start(t, harness.WithNetwork(w.host), harness.WithFlags("--egress-dns", internetAddr))
	r := s.TryDeploy("out", "probe", "egress: internet\n")
	if r.Exit == 0 || !strings.Contains(r.Stdout+r.Stderr, "--egress-range") || !strings.Contains(r.Stdout+r.Stderr, "10.119.7.0/24 on up0") {
		t.Errorf("deploy ended with %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if r := s.TryDeploy("out", "probe", "egress: everything\n"); r.Exit != 2 || !strings.Contains(r.Stderr, "egress") {
		t.Errorf("deploy ended with %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if tables := w.tables(); len(tables) > 0 {
		t.Errorf("tables %v", tables)
	}
}

// forwarding is the machine's setting for its one way out.
func (w *world) forwarding() (value string) {
	w.host.Must(func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/conf/up0/forwarding")
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}
