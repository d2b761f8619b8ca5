//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The server is killed again and again while instances start, run and stop and while work is handed over: it comes back each time with
// everything it accepted, and in the end nothing is left of what the kills cut short.
func TestKillStorm(t *testing.T) {
	const rounds, fns = 6, 4
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := harness.Start(t)
	for i := range fns {
		s.Deploy(fmt.Sprintf("f%d", i), "probe", "cpu: 100m\nmemory: 32Mi\nephemeral: 8Mi\nscale: {max: 2, keepAlive: 1s}\n")
	}
	accepted := map[string]bool{}
	var mu sync.Mutex
	for range rounds {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range fns {
			for _, path := range []string{"/fn/f%d/sleep?ms=30", "/async/f%d/sleep?ms=30"} {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						// The kill cuts requests: only what was accepted counts.
						resp, _, err := s.TryDo("POST", fmt.Sprintf(path, i), "x", nil)
						if err == nil && resp.StatusCode == 202 {
							mu.Lock()
							accepted[resp.Header.Get("Tatami-Invocation-Id")] = true
							mu.Unlock()
						}
						if err != nil {
							return
						}
					}
				})
			}
		}
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		s.Kill()
		close(stop)
		wg.Wait()
		s.Launch()
	}
	for id := range accepted {
		if st := result(t, s, id); st.State != string(functions.StateSucceeded) {
			t.Errorf("%s: %+v", id, st)
		}
	}
	for i := range fns {
		if resp, body := s.Get(fmt.Sprintf("/fn/f%d/pid", i)); resp.StatusCode != 200 {
			t.Errorf("f%d: %s %s", i, resp.Status, body)
		}
	}
	t.Logf("%d invocations accepted in %d rounds", len(accepted), rounds)
	if len(accepted) == 0 {
		t.Error("nothing was accepted: the test shows nothing")
	}
}
