//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// icy keeps one instance, which is frozen soon.
const icy = "scale: {min: 1, max: 1, freezeAfter: 100ms, keepAlive: 10m}\nreadiness: {path: /ready}\n"

// awaitFrozen returns the one instance of the function once it is frozen.
func awaitFrozen(t *testing.T, s *harness.Server, fn string) v1.Instance {
	t.Helper()
	var one v1.Instance
	eventually(t, 20*time.Second, fn+" is frozen", func() bool {
		all := instances(t, s, fn)
		if len(all) != 1 {
			t.Fatalf("%d instances: %+v", len(all), all)
		}
		one = all[0]
		return one.State == functions.InstanceFrozen
	})
	return one
}

// TestFrozen: an idle instance stands still, shows as frozen, and serves whoever comes, by whichever way, as if it had not.
func TestFrozen(t *testing.T) {
	everywhere(t, func(t *testing.T, s *harness.Server) {
		s.Deploy("ice", "probe", icy)
		before := awaitFrozen(t, s, "ice")
		for path, want := range map[string]string{
			"inst ls":                           "frozen",
			"fn show ice":                       "1 ready (1 of them frozen)",
			"status":                            "1 of them frozen",
			"explain " + string(before.ID):      "frozen since",
			"inst show " + string(before.ID):    "frozen",
			"inst ls -o wide --function ice":    "frozen",
			"inst ls -o json --namespace other": "[]",
		} {
			if out := s.CLI(strings.Fields(path)...); out.Exit == 0 && !strings.Contains(out.Stdout, want) {
				t.Errorf("tatami %s says nothing of %q:\n%s", path, want, out.Stdout)
			}
		}
		if resp, body := s.Get("/fn/ice/pid"); resp.StatusCode != http.StatusOK || strings.Contains(resp.Header.Get("Server-Timing"), "create") {
			t.Fatalf("%s %s", resp.Status, body)
		}
		awaitFrozen(t, s, "ice")
		if st := result(t, s, async(t, s, "ice", "queued")); st.State != string(functions.StateSucceeded) || !strings.Contains(st.Body, "queued") {
			t.Errorf("from the queue: %+v", st)
		}
		awaitFrozen(t, s, "ice")
		// Its own network, where the port is taken: so it runs.
		if r := s.CLI("inst", "exec", string(before.ID), "--", "/function"); r.Exit != 1 || !strings.Contains(r.Stderr, "address already in use") {
			t.Errorf("exec ended with %d and gave %q, %q", r.Exit, r.Stdout, r.Stderr)
		}
		if after := awaitFrozen(t, s, "ice"); after.ID != before.ID || after.PID != before.PID {
			t.Errorf("another instance: before %+v, after %+v", before, after)
		}
		s.Must("delete", "ice", "--yes")
		var gone []v1.Instance
		eventually(t, 30*time.Second, "the frozen instance is deleted", func() bool {
			list(t, s, &gone, "inst", "ls", "ice", "--gone")
			return len(gone) == 1 && gone[0].State.Gone()
		})
		if exit := gone[0].Exit; exit == nil || exit.Code != 0 {
			t.Errorf("%+v ended with %+v: it was not thawed before SIGTERM, which it heeds", gone[0], exit)
		}
	})
}

// TestStreamsAreNotFrozen: a connection that lasts holds a slot, however little moves on it.
func TestStreamsAreNotFrozen(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("ice", "probe", icy)
	awaitFrozen(t, s, "ice")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+s.Public+"/fn/ice/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	resp, err := http.Get(s.URL("/fn/ice/stream?n=3&ms=1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if events, err := io.ReadAll(resp.Body); err != nil || strings.Count(string(events), "data:") != 3 {
		t.Errorf("%q, %v", events, err)
	}
	// Three seconds of silence on the WebSocket, thirty times the grace. Who holds slots a worker tells every other second.
	eventually(t, 20*time.Second, "the instance is ready, and a slot of it held", func() bool {
		one := instances(t, s, "ice")
		return len(one) == 1 && one[0].State == functions.InstanceReady && one[0].Held > 0
	})
	if err := c.Write(ctx, websocket.MessageText, []byte("awake")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "awake" {
		t.Errorf("%q, %v", got, err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	awaitFrozen(t, s, "ice")
}

// TestFrozenOutlivesKill: after kill -9 of the server a frozen instance is adopted, and serves.
func TestFrozenOutlivesKill(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("ice", "probe", icy)
	before := awaitFrozen(t, s, "ice")
	s.Kill()
	s.Launch()
	var after []v1.Instance
	eventually(t, 20*time.Second, "the instance is adopted", func() bool {
		after = instances(t, s, "ice")
		return len(after) == 1 && after[0].State.Serves()
	})
	if after[0].ID != before.ID || after[0].PID != before.PID || !after[0].Adopted {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	if resp, body := s.Get("/fn/ice/echo"); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	awaitFrozen(t, s, "ice")
	// Killed while frozen and gone while nobody looks: removed with a reason, and replaced.
	if resp, body := s.Get("/fn/ice/echo"); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
}

// TestFreezeAgainstRequests: requests that come at the very moment of freezing are answered, every one.
func TestFreezeAgainstRequests(t *testing.T) {
	s := harness.Start(t)
	const fns, each = 8, 120
	for n := range fns {
		s.Deploy(fmt.Sprintf("ice-%d", n), "probe", icy+"memory: 32Mi\ncpu: 50m\nephemeral: 4Mi\n")
	}
	for n := range fns {
		awaitFrozen(t, s, fmt.Sprintf("ice-%d", n))
	}
	var wg sync.WaitGroup
	for n := range fns {
		wg.Go(func() {
			for i := range each {
				// Bodies, too: a connection that slept over its end would lose what cannot be sent again.
				want := fmt.Sprintf("%d of %d", i, n)
				resp, body, err := s.TryDo("POST", fmt.Sprintf("/fn/ice-%d/cat", n), want, nil)
				if err != nil || resp.StatusCode != http.StatusOK || body != want {
					t.Errorf("request %d: %v %q", i, err, body)
					return
				}
				time.Sleep(95*time.Millisecond + rand.N(12*time.Millisecond))
			}
		})
	}
	wg.Wait()
}
