package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/worker"
)

// An artifact stays on the node as long as a revision that can get the traffic names it, or an instance runs from it.
func TestArtifactsThatNobodyNeedsGo(t *testing.T) {
	t.Parallel()
	const grace = 60 * time.Millisecond
	w := newWorld(t, func(c *worker.Config) { c.ArtifactGrace = grace })
	of := func(name, digit string) *functions.Revision {
		r := revision()
		r.ID, r.State, r.Artifact.Digest = functions.RevisionID("rev_"+name), functions.RevisionReady, "sha256:"+strings.Repeat(digit, 64)
		if _, err := w.bus.Revisions().Put(t.Context(), bus.RevisionKey(r.Ref(), r.ID), *r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	kept, used, failed := of("kept", "1"), of("used", "2"), of("failed", "3")
	var ids []functions.InstanceID
	for _, r := range []*functions.Revision{kept, used, failed} {
		ids = append(ids, w.serving(r))
	}
	has := func(r *functions.Revision) bool { return slices.Contains(w.driver.Prepared(), r.Artifact.Digest) }
	gone := func(r *functions.Revision) {
		t.Helper()
		for end := time.Now().Add(patience); has(r); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the artifact of %s stays", r.ID)
			}
		}
	}
	stop := func(id functions.InstanceID) {
		w.tell(id, bus.ActionStop, "idle", time.Time{})
		w.state(id, functions.InstanceStopped)
	}

	stop(ids[0])
	failed.State = functions.RevisionFailed
	if _, err := w.bus.Revisions().Put(t.Context(), bus.RevisionKey(failed.Ref(), failed.ID), *failed); err != nil {
		t.Fatal(err)
	}
	if err := w.bus.Revisions().Delete(t.Context(), bus.RevisionKey(used.Ref(), used.ID)); err != nil {
		t.Fatal(err)
	}
	stop(ids[2])
	gone(failed)
	if got := w.driver.wasReleased(); !slices.Equal(got, []string{failed.Artifact.Digest}) {
		t.Errorf("released: %q", got)
	}
	time.Sleep(2 * grace)
	if !has(kept) || !has(used) {
		t.Errorf("gone: of a live revision %t, of a running instance %t", !has(kept), !has(used))
	}
	stop(ids[1])
	gone(used)

	// It comes back with the next instance.
	stop(w.serving(of("used", "2")))
	if !has(used) {
		t.Error("it was not prepared again")
	}
}
