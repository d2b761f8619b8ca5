//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// What a function does wrong is told to its caller with the reason, and harms nobody else.
func TestBadFunctions(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("good", "probe", "scale: {min: 1}\n")
	good := func(after string) {
		t.Helper()
		if resp, body := s.Get("/fn/good/pid"); resp.StatusCode != 200 {
			t.Errorf("after %s another function answers %s: %s", after, resp.Status, body)
		}
	}

	// It ends ten seconds later, when it is killed: the last of what follows looks.
	s.Deploy("deaf", "probe", "env: {PROBE_START: ignore-sigterm}\nscale: {min: 1}\n")
	s.Must("delete", "deaf", "--yes")

	deploys := []struct{ name, spec, want string }{
		{"exits", "env: {PROBE_START: exit}\n", "exited with code"},
		{"never-listens", "env: {PROBE_START: never-listen}\nreadiness: {timeout: 2s}\n", "not ready within 2s"},
	}
	for _, d := range deploys {
		t.Run(d.name, func(t *testing.T) {
			r := s.TryDeploy(d.name, "probe", d.spec)
			if r.Exit != 9 || !strings.Contains(r.Stderr, d.want) {
				t.Errorf("ended with %d, want 9 and %q:\n%s", r.Exit, d.want, r.Stderr)
			}
			resp, body := s.Get("/fn/" + d.name)
			refused(t, resp, body, 502, "function-not-ready")
			if gone := s.Must("inst", "ls", d.name, "--gone").Stdout; !strings.Contains(gone, "failed") || !strings.Contains(gone, d.want) {
				t.Errorf("what became of its instances is not told:\n%s", gone)
			}
			good(d.name)
		})
	}

	t.Run("listens late", func(t *testing.T) {
		s.Deploy("late", "probe", "env: {PROBE_START: 'listen-late:2s'}\n")
		if resp, body := s.Get("/fn/late/pid"); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
	})

	// The instance that crashed is replaced within the timeout, on a loaded machine too.
	s.Deploy("bad", "probe", "timeout: 20s\nmemory: 48Mi\npids: 40\nephemeral: 8Mi\n")
	s.Deploy("slow", "probe", "timeout: 6s\nscale: {min: 1}\n")
	s.Deploy("each", "probe", "timeout: 20s\nenv: {PROBE_START: crash-each}\nreadiness: {path: /ready}\n")
	calls := []struct {
		fn, path, code, says string
		status               int
	}{
		{"bad", "/crash", "function-crashed", "exited with code 1", 502},
		{"bad", "/exit0", "function-crashed", "exited with code 0", 502},
		{"bad", "/oom", "function-crashed", "out of memory", 502},
		{"slow", "/sleep?ms=60000", "function-timeout", "6s", 504},
	}
	for _, c := range calls {
		t.Run(c.path, func(t *testing.T) {
			resp, body := s.Get("/fn/" + c.fn + c.path)
			refused(t, resp, body, c.status, c.code)
			if !strings.Contains(body, c.says) {
				t.Errorf("the answer does not say %q: %s", c.says, body)
			}
			if resp, body := s.Get("/fn/" + c.fn + "/pid"); resp.StatusCode != 200 {
				t.Errorf("the next call: %s %s", resp.Status, body)
			}
			good(c.path)
		})
	}
	t.Run("crashes at every call", func(t *testing.T) {
		for range 3 {
			resp, body := s.Get("/fn/each/pid")
			refused(t, resp, body, 502, "function-crashed")
		}
		if st := result(t, s, async(t, s, "each", "x")); st.State != string(functions.StateDead) || len(st.Attempts) != 3 || st.Attempts[2].Error != "function-crashed" {
			t.Errorf("through the queue: %+v", st)
		}
		good("a function that always crashes")
	})

	t.Run("forks without end", func(t *testing.T) {
		s.TryDo("GET", "/fn/bad/fork", "", nil)
		good("a fork bomb")
		s.Must("delete", "bad", "--yes")
		eventually(t, 30*time.Second, "the fork bomb ends", func() bool { return len(instances(t, s, "bad")) == 0 })
		s.Deploy("bad", "probe", "timeout: 20s\nephemeral: 8Mi\n")
	})
	t.Run("broken response", func(t *testing.T) {
		if resp, body, err := s.TryDo("GET", "/fn/bad/broken", "", nil); err == nil {
			t.Errorf("a response that ends early looks whole: %s %q", resp.Status, body)
		}
		good("a broken response")
	})
	t.Run("endless response", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", s.URL("/fn/slow/endless"), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err == nil || ctx.Err() != nil {
			t.Errorf("an endless response was not cut: %v", err)
		}
		good("an endless response")
	})
	t.Run("endless logs", func(t *testing.T) {
		s.TryDo("GET", "/fn/bad/endless-log", "", nil)
		for range 100 {
			good("endless logs")
		}
		eventually(t, 10*time.Second, "something of the flood is in the logs", func() bool {
			return strings.Contains(s.Must("logs", "bad").Stdout, "log without end")
		})
		// What was written while nobody read it is given back, too, a moment later.
		eventually(t, 10*time.Second, "the run directory holds no more than 64 MiB", func() bool { return dirSize(t, s.RunDir) <= 64<<20 })
	})
	t.Run("the disk", func(t *testing.T) {
		resp, body := s.Get("/fn/bad/write?mb=64")
		if resp.StatusCode == 200 || !strings.Contains(body, "no space left") && !strings.Contains(body, "out of memory") {
			t.Errorf("64 MiB went into 8 MiB: %s %s", resp.Status, body)
		}
	})
	t.Run("a client that vanishes", func(t *testing.T) {
		c, err := net.Dial("tcp", s.Public)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /fn/good/sleep?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n")
		eventually(t, 10*time.Second, "the slot is held", func() bool { return held(t, s, "good") == 1 })
		c.Close()
		eventually(t, 10*time.Second, "the slot is given back", func() bool { return held(t, s, "good") == 0 })

		c, err = net.Dial("tcp", s.Public)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST /fn/good/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")
		c.Close()
		good("a client that vanished half way")
	})
	t.Run("ignores SIGTERM", func(t *testing.T) {
		eventually(t, 40*time.Second, "it ends all the same", func() bool { return len(instances(t, s, "deaf")) == 0 })
	})
}

// held counts the slots that a function's instances hold, by their own reports.
func held(t *testing.T, s *harness.Server, fn string) int {
	n := 0
	for _, i := range instances(t, s, fn) {
		n += i.Held
	}
	return n
}

func dirSize(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if e.IsDir() && e.Name() != "sandboxes" {
			n += dirSize(t, dir+"/"+e.Name())
		} else if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			// What the files take: output that was read is given back as holes.
			n += st.Blocks * 512
		}
	}
	return n
}

// The gateway answers for itself what no function may answer.
func TestRefusals(t *testing.T) {
	s := harness.Start(t, harness.WithFlags("--max-body", "1Mi"))
	s.Deploy("probe", "probe", "")
	big := strings.Repeat("x", 2<<20)
	for _, c := range []struct {
		method, path, body, code string
		status                   int
	}{
		{"GET", "/fn/nobody", "", "function-not-found", 404},
		{"POST", "/async/nobody", "", "function-not-found", 404},
		{"GET", "/fn/Not_A_Name", "", "invalid-request", 400},
		{"POST", "/fn/probe/echo", big, "body-too-large", 413},
		{"POST", "/async/probe", big, "body-too-large", 413},
		{"GET", "/invocations/inv_nothing", "", "invocation-not-found", 404},
		{"GET", "/invocations/inv_" + strings.Repeat("a", 36), "", "invocation-not-found", 404},
		{"GET", "/invocations/inv_" + strings.Repeat("a", 36) + "?wait=x", "", "invalid-request", 400},
	} {
		resp, body := s.Do(c.method, c.path, c.body, nil)
		refused(t, resp, body, c.status, c.code)
	}

	c, err := net.Dial("tcp", s.Public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /fn/probe HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 4<<20)+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of 4 MiB: %s", resp.Status)
	}
}
