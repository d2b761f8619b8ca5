package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

func (s *suite) exec(t *testing.T) {
	c := s.create(t, s.spec())
	run := func(t *testing.T, sb sandbox.Sandbox, in string, args ...string) (int, string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var stdin *strings.Reader
		if in != "" {
			stdin = strings.NewReader(in)
		}
		var code int
		var err error
		if stdin != nil {
			code, err = sb.Exec(ctx, args, stdin, &out, &errs)
		} else {
			code, err = sb.Exec(ctx, args, nil, &out, &errs)
		}
		if err != nil {
			t.Fatalf("exec %q: %v", args, err)
		}
		return code, out.String(), errs.String()
	}
	t.Run("output and code", func(t *testing.T) {
		if code, out, _ := run(t, c, "", "/testfn", "print", "one", "two"); code != 0 || out != "one two\n" {
			t.Errorf("%d %q", code, out)
		}
		if code, _, _ := run(t, c, "", "/testfn", "exit", "9"); code != 9 {
			t.Errorf("%d", code)
		}
		if _, out, _ := run(t, c, "", "/testfn", "id"); out != s.id() {
			t.Errorf("it runs as %q", out)
		}
		if code, _, errs := run(t, c, "", "/testfn", "exit", "none"); code == 0 || !strings.Contains(errs, "is no number") {
			t.Errorf("%d %q", code, errs)
		}
	})
	t.Run("input", func(t *testing.T) {
		in := strings.Repeat("a line of input\n", 10_000)
		if code, out, _ := run(t, c, in, "/testfn", "cat"); code != 0 || out != in {
			t.Errorf("%d, %d bytes of %d", code, len(out), len(in))
		}
	})
	t.Run("unknown program", func(t *testing.T) {
		if _, err := c.Exec(t.Context(), []string{"/no-such-program"}, nil, nil, nil); !fault.Is(err, fault.CodeInvalidRequest) {
			t.Errorf("%v", err)
		}
	})
	sleepers := func(t *testing.T) string {
		t.Helper()
		code, out, errs := run(t, c, "", "/testfn", "sleepers")
		if code != 0 {
			t.Fatalf("%d %q", code, errs)
		}
		return strings.TrimSpace(out)
	}
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		given := make(chan error, 1)
		go func() {
			_, err := c.Exec(ctx, []string{"/testfn", "sleep"}, nil, nil, nil)
			given <- err
		}()
		eventually(t, "the process runs", func() bool { return sleepers(t) == "1" })
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if n := sleepers(t); n != "0" {
			t.Errorf("%s processes go on", n)
		}
	})
	t.Run("given up while it begins", func(t *testing.T) {
		for _, after := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			_, err := c.Exec(ctx, []string{"/testfn", "sleep"}, nil, nil, nil)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %v: %v", after, err)
			}
		}
		if n := sleepers(t); n != "0" {
			t.Errorf("%s processes go on", n)
		}
	})
	t.Run("after the end", func(t *testing.T) {
		sb := s.start(t, s.spec("EXIT=0"))
		exits(t, sb)
		if _, err := sb.Exec(t.Context(), []string{"/testfn", "id"}, nil, nil, nil); !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("%v", err)
		}
	})
}

func (s *suite) output(t *testing.T) {
	t.Run("apart", func(t *testing.T) {
		info := s.create(t, s.spec()).Info()
		eventually(t, "both streams are in their files", func() bool {
			out, _ := os.ReadFile(info.Stdout)
			errs, _ := os.ReadFile(info.Stderr)
			return string(out) == "listening\n" && strings.Contains(string(errs), "says stderr") && strings.Count(string(errs), "\n") == 1
		})
	})
	t.Run("endless", func(t *testing.T) {
		c := s.create(t, s.spec("SPEW=1"))
		size := func() int64 {
			st, err := os.Stat(c.Info().Stdout)
			if err != nil {
				t.Fatal(err)
			}
			return st.Size()
		}
		for range 3 {
			eventually(t, "output arrives", func() bool { return size() > 1<<20 })
			if err := os.Truncate(c.Info().Stdout, 0); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "output arrives after the truncation", func() bool { return size() > 1<<20 })
		// A writer with its own offset would have left a hole.
		b := make([]byte, 1)
		f, err := os.Open(c.Info().Stdout)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Read(b); err != nil || b[0] == 0 {
			t.Errorf("the file begins with a hole: %q, %v", b, err)
		}
		if got := c.get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
		if err := c.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(c.Info().Stdout); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its output stays: %v", err)
		}
	})
}

// adopted checks that the sandbox is the same as before and that everything works with it.
func (s *suite) adopted(t *testing.T, before sandbox.Info) {
	t.Helper()
	sb := s.find(t, before.ID)
	if sb == nil {
		t.Fatal("it is not listed")
	}
	info := sb.Info()
	if info.PID != before.PID || !bytes.Equal(info.Record, before.Record) || info.Stdout != before.Stdout || info.Create != 0 || info.Start != 0 {
		t.Errorf("%+v, before %+v", info, before)
	}
	c := serving(t, sb)
	if got := c.get("/"); got != "hello" {
		t.Errorf("%q", got)
	}
	c.get("/say", "text", "after the restart")
	eventually(t, "its output goes on", func() bool {
		out, _ := os.ReadFile(info.Stdout)
		return strings.HasPrefix(string(out), "listening\n") && strings.Contains(string(out), "after the restart\n")
	})
	var out bytes.Buffer
	if code, err := sb.Exec(t.Context(), []string{"/testfn", "id"}, nil, &out, nil); err != nil || code != 0 || out.String() != s.id() {
		t.Errorf("exec: %d, %q, %v", code, out.String(), err)
	}
	if u, err := sb.Stats(t.Context()); err != nil || u.Memory <= 0 {
		t.Errorf("stats: %+v, %v", u, err)
	}
	if _, err := c.try("/exit", "code", "5"); err == nil {
		t.Error("it answered after its exit")
	}
	if e := exits(t, sb); e != (functions.Exit{Code: 5}) {
		t.Errorf("%+v", e)
	}
	if err := sb.Stop(t.Context(), time.Second); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func (s *suite) adoption(t *testing.T) {
	t.Run("after Close", func(t *testing.T) {
		c := s.create(t, s.spec())
		gone := s.create(t, s.spec())
		before, lost := c.Info(), gone.Info()
		s.reopen(t)
		s.adopted(t, before)
		// Its exit was not seen by anybody: the process's state tells.
		again := serving(t, s.find(t, lost.ID))
		if err := s.driver.Close(); err != nil {
			t.Fatal(err)
		}
		kill(t, lost.PID)
		_ = again
		s.driver = s.Open(t)
		sb := s.find(t, lost.ID)
		if sb == nil {
			t.Fatal("one that ended meanwhile is not listed")
		}
		if e := exits(t, sb); e.Code != 137 || e.OOM || sb.Info().PID != 0 {
			t.Errorf("%+v, pid %d", e, sb.Info().PID)
		}
		if !strings.Contains(strings.Join(s.driver.Prepared(), " "), s.artifact.Digest) {
			t.Error("the artifact is no longer prepared")
		}
		// Without another Prepare.
		spec := s.spec()
		sb, err := s.driver.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after SIGKILL", func(t *testing.T) {
		if err := s.driver.Close(); err != nil {
			t.Fatal(err)
		}
		before := s.Crash(t, s.spec(), StepServe, 0)
		s.driver = s.Open(t)
		if before == nil {
			t.Fatal("nothing was made")
		}
		s.adopted(t, *before)
	})
	// SIGKILL at any time leaves nothing that the next start with Stop does not remove.
	for _, c := range []struct {
		in Step
		ms []int
	}{
		{StepPrepare, []int{2, 8, 15, 30, 60}},
		{StepCreate, []int{1, 3, 6, 10, 15, 20, 26, 33, 41, 50, 60, 75}},
		{StepStop, []int{1, 4, 8, 13, 20, 30}},
	} {
		t.Run("SIGKILL within "+string(c.in), func(t *testing.T) {
			for i, ms := range c.ms {
				spec := s.spec()
				if c.in == StepPrepare {
					// One that is not prepared yet.
					layer := Layer(t, Entry{Name: "file", Body: []byte(spec.ID), Mode: 0o644})
					spec.Artifact = s.Blobs.Put(t, Image(t, v1.Config{Entrypoint: []string{"/testfn"}}, runtime.GOARCH, layer, s.fn))
				}
				if err := s.driver.Close(); err != nil {
					t.Fatal(err)
				}
				s.Crash(t, spec, c.in, time.Duration(ms)*time.Millisecond)
				s.driver = s.Open(t)
				for _, sb := range s.list(t) {
					if err := sb.Stop(t.Context(), 0); err != nil {
						t.Errorf("after %d ms: stop: %v", ms, err)
					}
				}
				if left := s.Left(t); len(left) > 0 {
					t.Errorf("after %d ms: left behind: %q", ms, left)
				}
				if c.in == StepPrepare || i == 0 {
					if got := s.create(t, spec).get("/"); got != "hello" {
						t.Errorf("after %d ms: %q", ms, got)
					}
				}
			}
		})
	}
}

func kill(t testing.TB, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed process is gone", func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		return err != nil
	})
}
