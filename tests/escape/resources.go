//go:build linux

package escape

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

// resources: what is taken beyond a limit is refused, and the neighbour goes on.
func (s *suite) resources(t *testing.T) {
	spec := s.spec()
	// The processes that it may have must fit into its memory, with what a kernel counts for each.
	spec.Limits.PIDs, spec.Limits.Memory, spec.Limits.Ephemeral = 40, 128*functions.MiB, 8*functions.MiB
	tight := s.hold(t, spec)
	roomy := s.spec()
	roomy.Limits.PIDs, roomy.Limits.Memory, roomy.Limits.Ephemeral = 1000, 512*functions.MiB, 64*functions.MiB
	wide := s.hold(t, roomy)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, args, refusal string }{
		{"bomb", "n=60", "EAGAIN"}, {"memory", "n=150000000", "ENOMEM"},
		{"fill", "path=/tmp/f&n=20000000", "ENOSPC"}, {"fill", "path=/dev/shm/f&n=20000000", "ENOSPC"}, {"inodes", "path=/tmp&n=5000", "ENOSPC"},
	} {
		s.refused(t, tight, c.name, c.args, c.refusal)
		if got := wide.try(t, c.name, c.args); got.Errno != "" {
			t.Errorf("a function with more room cannot do it either: %s %s: %+v", c.name, c.args, got)
		}
	}
	// Beside that only root may write, within the same bound.
	s.refused(t, tight, "fill", "path=/f&n=20000000", "EACCES")
	if got := tight.try(t, "bomb", "n=100000"); got.Errno != "EAGAIN" {
		t.Errorf("a fork bomb: %+v", got)
	} else if n, err := strconv.Atoi(got.Detail); err != nil || n >= 40 {
		t.Errorf("it had %s processes", got.Detail)
	}
	most := min(65536, files.Max)
	got := wide.try(t, "sockets", "n=100000")
	if n, err := strconv.ParseUint(got.Detail, 10, 64); got.Errno != "EMFILE" || err != nil || n >= most || n < most-64 {
		t.Errorf("100,000 sockets where %d files may be open: %+v", most, got)
	}
	s.processors(t)
	for _, p := range []*prisoner{tight, wide} {
		if u, err := p.Stats(t.Context()); err != nil || u.PIDs < 1 || u.PIDs > 40 {
			t.Errorf("afterwards: %s", fmt.Sprint(u, err))
		}
	}
}

// processors: whoever may have a tenth of a processor does not get more, on however many threads. It takes no clock of ours to be sure: a busy
// machine only makes it slower.
func (s *suite) processors(t *testing.T) {
	t.Helper()
	// A period's quota or two may be left of the time before.
	const want, least = 300, 2100
	spin := func(cpu int64) int {
		spec := s.spec()
		spec.Limits.CPU = cpu
		p := s.hold(t, spec)
		took := 0
		for range 20 {
			got := p.try(t, "spin", "n="+strconv.Itoa(want))
			n, err := strconv.Atoi(got.Detail)
			if err != nil || got.Errno != "" {
				t.Fatalf("spin: %+v", got)
			}
			if took = n; cpu < 1000 || took < least {
				break
			}
		}
		return took
	}
	if took := spin(100); took < least {
		t.Errorf("a tenth of a processor gave %d ms of one in %d ms", want, took)
	}
	if took := spin(2000); took >= least {
		t.Errorf("two processors gave %d ms of one in %d ms too: the limit is not what was shown", want, took)
	}
}
