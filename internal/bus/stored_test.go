package bus_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/bus"
)

// Every message of a work queue that matches is read once, in its order, over many batches, and messages that are gone are left out.
func TestEachStored(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	read := func(match string) (subjects []string) {
		t.Helper()
		last := uint64(0)
		err := b.EachStored(t.Context(), bus.StreamInvocations, match, func(seq uint64, subject string, h nats.Header) {
			if seq <= last || h.Get("X-Own") != subject {
				t.Errorf("%s at %d after %d: %v", subject, seq, last, h)
			}
			last = seq
			subjects = append(subjects, subject)
		})
		if err != nil {
			t.Fatal(err)
		}
		return subjects
	}
	if got := read("sched.>"); len(got) > 0 {
		t.Errorf("an empty stream has %q", got)
	}
	var want []string
	for i := range 2500 {
		class := "inv"
		if i%5 > 0 {
			class = "sched"
		}
		subject := fmt.Sprintf("%s.h.%d", class, i)
		if class == "sched" && i != 1 && i != 2499 {
			want = append(want, subject)
		}
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: subject, Data: make([]byte, 20<<10), Header: nats.Header{"X-Own": {subject}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range []uint64{2, 2500} {
		if err := b.Invocations().DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	if got := read("sched.>"); !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d", len(got), len(want))
	}
	if got := read("sched.other.*"); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
