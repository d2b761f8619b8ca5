package procs_test

import (
	"testing"

	"github.com/tatami-faas/tatami/internal/procs"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env     string
		n, want int
	}{{"", 1, 4}, {"", 2, 4}, {"", 3, 4}, {"", 4, 5}, {"", 64, 65}, {"2", 2, 0}} {
		got := procs.Choose(c.n, func(name string) string {
			if name != "GOMAXPROCS" {
				t.Errorf("%s is asked for", name)
			}
			return c.env
		})
		if got != c.want {
			t.Errorf("GOMAXPROCS=%q, %d: %d, want %d", c.env, c.n, got, c.want)
		}
	}
}
