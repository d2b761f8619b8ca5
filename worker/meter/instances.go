package meter

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
)

// Sandbox is what is metered.
type Sandbox interface {
	Stats(ctx context.Context) (functions.Usage, error)
}

const (
	// parallel is how many sandboxes are asked at once.
	parallel = 4
	// patience is how long one may take to answer, so that a stuck one hides no other for long.
	patience = time.Second
)

// Each asks every sandbox for its usage and hands the answers to set, from several goroutines. One that does not answer is left out.
func Each[K comparable](ctx context.Context, sandboxes map[K]Sandbox, set func(K, functions.Usage)) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for k, s := range sandboxes {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if u, err := s.Stats(ctx); err == nil {
				set(k, u)
			}
			return nil
		})
	}
	_ = g.Wait()
}
