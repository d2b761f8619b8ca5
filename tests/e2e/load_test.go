//go:build e2e

package e2e

import (
	"context"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Three functions under load at once, one at concurrency 1 and one at 50: no request fails while they scale up, while each is
// redeployed twice, and while they scale down.
func TestLoad(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Fatal("the load comes from wrk: apt-get install wrk")
	}
	s := harness.Start(t)
	spec := func(concurrency, version string) string {
		return "cpu: 100m\nmemory: 64Mi\nephemeral: 16Mi\nconcurrency: " + concurrency + "\nenv: {VERSION: " + version + "}\nscale: {max: 4, keepAlive: 2s}\n"
	}
	names := map[string]string{"one": "1", "fifty": "50", "ten": "10"}
	for name, c := range names {
		s.Deploy(name, "probe", spec(c, "a"))
	}
	var wg sync.WaitGroup
	for name := range names {
		for _, conns := range []int{8, 4} {
			wg.Go(func() { load(t, s, name, conns, 14*time.Second) })
		}
	}
	time.Sleep(2 * time.Second)
	for _, version := range []string{"b", "c"} {
		for name, c := range names {
			s.Deploy(name, "probe", spec(c, version))
		}
	}
	wg.Wait()
	for name := range names {
		eventually(t, 30*time.Second, name+" scales to zero", func() bool { return len(instances(t, s, name)) == 0 })
	}
}

var wrkFailures = regexp.MustCompile(`(?m)^\s*(Socket errors:.*|Non-2xx or 3xx responses:.*)$`)

// load runs wrk and fails the test if any request failed.
func load(t *testing.T, s *harness.Server, fn string, conns int, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d+time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(conns), "-d", strconv.Itoa(int(d.Seconds()))+"s", "--timeout", "30s", s.URL("/fn/"+fn+"/pid")).CombinedOutput()
	if err != nil {
		t.Errorf("wrk on %s: %v\n%s", fn, err, out)
		return
	}
	if bad := wrkFailures.Find(out); bad != nil {
		t.Errorf("%s with %d connections: %s\n%s", fn, conns, strings.TrimSpace(string(bad)), out)
	}
	if !strings.Contains(string(out), "requests in") {
		t.Errorf("wrk on %s made no report:\n%s", fn, out)
	}
}
