package worker

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tatami-faas/tatami/functions"
)

// A function that starts many holds up one of another by the starts under way, not by those that wait.
func TestTurnsGoRoundTheFunctions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(2)
		var got []string
		wait := func(ctx context.Context, fn string) {
			go func() {
				if turns.take(ctx, functions.Ref{Name: fn}) == nil {
					got = append(got, fn)
				}
			}()
			synctest.Wait()
		}
		for range 6 {
			wait(t.Context(), "many")
		}
		ctx, leave := context.WithCancel(t.Context())
		wait(ctx, "gone")
		wait(t.Context(), "one")
		wait(t.Context(), "two")
		wait(t.Context(), "two")
		if !slices.Equal(got, []string{"many", "many"}) {
			t.Fatalf("two turns are free, and had by %q", got)
		}
		leave()
		synctest.Wait()
		for range 7 {
			turns.give()
			synctest.Wait()
		}
		if want := []string{"many", "many", "many", "one", "two", "many", "two", "many", "many"}; !slices.Equal(got, want) {
			t.Errorf("order %q, want %q", got, want)
		}
		for range 2 {
			turns.give()
		}
		if turns.free != 2 || len(turns.waiting) != 0 || len(turns.order) != 0 {
			t.Errorf("left: %+v", turns)
		}
	})
}

// Whoever gives up in the very moment of its turn passes it on.
func TestATurnThatNobodyTakesIsPassedOn(t *testing.T) {
	t.Parallel()
	for range 200 {
		turns := newTurns(1)
		if err := turns.take(t.Context(), functions.Ref{Name: "first"}); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- turns.take(ctx, functions.Ref{Name: "second"}) }()
		go leave()
		turns.give()
		if err := <-done; err == nil {
			turns.give()
		}
		leave()
		if err := turns.take(t.Context(), functions.Ref{Name: "third"}); err != nil || turns.free != 0 {
			t.Fatalf("%v, %d free", err, turns.free)
		}
	}
}
