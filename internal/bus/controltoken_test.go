package bus_test

import (
	"context"
	"sync"
	"testing"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// The servers of a cluster have one token of the control API: the first ones by what they have in common, one that is new by what the others have, after
// the authority was replaced, too; and a token that one of them makes is taken by all.
func TestServersHaveOneControlToken(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	var mu sync.Mutex
	has := map[int]string{}
	follow := func(i int) {
		own, err := c.buses[i].ControlToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- c.buses[i].FollowControlToken(ctx, own, func(token string) error {
				mu.Lock()
				defer mu.Unlock()
				has[i] = token
				return nil
			})
		}()
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	all := func(want string, servers ...int) {
		t.Helper()
		insistently(t, "all have one token", func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range servers {
				if has[i] != want {
					return fault.New(fault.CodeInternal, "server %d has %q, not %q", i, has[i], want)
				}
			}
			return nil
		})
	}
	first, err := c.buses[0].ControlToken(t.Context())
	if err != nil || first == "" {
		t.Fatalf("%q, %v", first, err)
	}
	follow(0)
	follow(1)
	all(first, 0, 1)
	insistently(t, "replacing the authority", func() error { return c.buses[0].Certificates().Rotate(false) })
	follow(2)
	all(first, 0, 1, 2)
	if err := c.buses[1].ShareControlToken(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	all("another", 0, 1, 2)
}

func TestAServerAloneSharesNoToken(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if _, err := b.ControlToken(t.Context()); err == nil {
		t.Error("it has one in common with others")
	}
	if err := b.ShareControlToken(t.Context(), "x"); err == nil {
		t.Error("it shares one")
	}
}
