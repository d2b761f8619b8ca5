package bus

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A key whose record was forgotten is as free as one that never had any; a record that came meanwhile stays.
func TestAForgottenKeyIsFree(t *testing.T) {
	t.Parallel()
	b := openStore(t)
	k := b.Keys()
	put := func(state functions.KeyState, revision uint64) (uint64, error) {
		return k.Put(t.Context(), "hash", &functions.KeyRecord{Schema: 1, State: state, Until: time.Now().Add(time.Hour)}, revision)
	}
	is := func(state functions.KeyState, revision uint64) {
		t.Helper()
		if rec, got, err := k.Get(t.Context(), "hash"); err != nil || rec.State != state || got != revision {
			t.Errorf("it is %q at %d, %v, want %q at %d", rec.State, got, err, state, revision)
		}
	}
	first, err := put(functions.KeyRunning, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The second time there is nothing to be removed any more.
	for range 2 {
		if err := k.Forget(t.Context(), "hash", first); err != nil {
			t.Fatal(err)
		}
		if _, _, err := k.Get(t.Context(), "hash"); !fault.Is(err, fault.CodeNotFound) {
			t.Errorf("a record that was forgotten: %v", err)
		}
	}
	open := 0
	if err := k.Open(t.Context(), func(string) { open++ }); err != nil || open > 0 {
		t.Errorf("%d keys are open, %v", open, err)
	}
	second, err := put(functions.KeyRunning, 0)
	if err != nil {
		t.Fatal(err)
	}
	is(functions.KeyRunning, second)
	if _, err := put(functions.KeyUnknown, 0); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a second record of one key: %v", err)
	}
	if err := k.Forget(t.Context(), "hash", first); err != nil {
		t.Fatal(err)
	}
	is(functions.KeyRunning, second)
	if err := k.Forget(t.Context(), "never", second+100); err != nil {
		t.Error(err)
	}
}
