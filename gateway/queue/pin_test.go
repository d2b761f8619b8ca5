package queue

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const older = functions.RevisionID("rev_aaaaaaaaaaaaaaaa")

// withOlder stores a revision beside the live one, and lets the data path know under which name it would run.
func withOlder(t *testing.T, w *world, h *leases) {
	t.Helper()
	cfg := functions.Config{Scale: functions.Scale{Min: 3}}.WithDefaults()
	cfg.Queue.OnSuccess = functions.Destination{Function: "nobody"}
	rev := functions.Revision{Schema: 1, ID: older, Namespace: "default", Function: "hello", State: functions.RevisionReady, Config: cfg, Created: time.Now().UTC()}
	if _, err := w.bus.Revisions().Put(t.Context(), bus.RevisionKey(hello, older), rev); err != nil {
		t.Fatal(err)
	}
	h.deploy(hello.Pinned(older), nil)
}

// leases is a data path that tells the function on which name it runs.
type leases struct{ *testDataPath }

type namedLease struct {
	Lease
	ref functions.Ref
}

func (p *leases) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	l, err := p.testDataPath.Lease(ctx, ref)
	if err != nil {
		return nil, err
	}
	return namedLease{l, ref}, nil
}

func (l namedLease) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header["X-On"] = []string{l.ref.Name}
	return l.Lease.RoundTrip(r)
}

func TestARedriveAgainstARevision(t *testing.T) {
	t.Parallel()
	run := &leases{testDataPath: newDataPath(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-On") == "hello" {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.Copy(w, r.Body)
	}))}
	run.deploy(hello, nil)
	w := startPath(t, run, Config{})
	withOlder(t, w, run)
	id := w.accept(Request{Body: []byte("work")})
	if st := w.ends(id); st.State != functions.StateDead {
		t.Fatalf("%+v", st)
	}
	_, err := w.q.Redrive(t.Context(), id, "rev_bbbbbbbbbbbbbbbb")
	wantCode(t, err, fault.CodeNotFound)
	again, err := w.q.Redrive(t.Context(), id, older)
	if err != nil {
		t.Fatal(err)
	}
	st := w.ends(again)
	if st.State != functions.StateSucceeded || st.Ref != hello || st.Attempts[0].Revision != older || w.body(st.Result) != "work" {
		t.Errorf("%+v", st)
	}
	// The pinned revision has nothing that would run without being asked.
	p := hello.Pinned(older)
	fn, _, err := w.bus.Functions().Get(t.Context(), bus.FunctionKey(p))
	if err != nil {
		t.Fatal(err)
	}
	rev, _, err := w.bus.Revisions().Get(t.Context(), bus.RevisionKey(p, fn.Live))
	if err != nil || rev.ID == older || rev.Config.Scale.Min != 0 || !rev.Config.Queue.OnSuccess.IsZero() {
		t.Errorf("%+v, %v", rev, err)
	}
	if of, id, ok := rev.Ref().PinnedTo(); !ok || of != hello || id != older {
		t.Errorf("%s is pinned to %s %s", rev.Ref(), of, id)
	}
	for _, c := range []struct {
		before time.Time
		left   int
	}{{fn.Updated.Add(-time.Hour), 1}, {fn.Updated, 0}} {
		if err := w.q.unpin(t.Context(), c.before); err != nil {
			t.Error(err)
		}
		if keys, err := w.bus.Functions().Keys(t.Context(), ""); err != nil || len(keys) != c.left {
			t.Errorf("%v, %v; want %d", keys, err, c.left)
		}
	}
	// The live revision needs no pin.
	live, err := w.q.pin(t.Context(), hello, "rev_test")
	if err != nil || live != hello {
		t.Errorf("%s, %v", live, err)
	}
}

func TestAReplayComparesAndChangesNothing(t *testing.T) {
	t.Parallel()
	run := &leases{testDataPath: newDataPath(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Kind", "live")
		if r.Header.Get("X-On") != "hello" {
			w.Header().Set("X-Kind", "older")
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, r.Header.Get("X-On")+" "+r.URL.RawQuery+" "+r.Header.Get(headerInvocation)+" "+string(body))
	}))}
	run.deploy(hello, func(c *functions.Config) { c.Queue.KeepRequests = true })
	w := startPath(t, run, Config{InlineBody: 64})
	withOlder(t, w, run)
	long := strings.Repeat("x", 100)
	id := w.accept(Request{Query: "a=b", Body: []byte(long)})
	before := w.ends(id)
	w.empty()
	same, err := w.q.Replay(t.Context(), id, "")
	if err != nil || len(same.Differences()) != 0 || same.Revision != "rev_test" || !strings.HasSuffix(string(same.Now.Body), long) {
		t.Errorf("%+v, %v: differs in %v", same, err, same.Differences())
	}
	other, err := w.q.Replay(t.Context(), id, older)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"state", "status", "body", "X-Kind"}, other.Differences()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if other.Now.Status != http.StatusTeapot || other.Before.Status != 200 || !strings.Contains(string(other.Now.Body), string(id)) {
		t.Errorf("%+v", other)
	}
	if d := cmp.Diff(before.Result, w.ends(id).Result); d != "" {
		t.Errorf("the record is changed (-before +after):\n%s", d)
	}
	// The sweep keeps a body that a kept request names, and takes it with the result.
	if err := w.q.sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.q.Replay(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	if err := w.bus.Results().Delete(t.Context(), string(id)); err != nil {
		t.Fatal(err)
	}
	if err := w.q.sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if left, err := w.bus.Bodies().List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	_, err = w.q.Replay(t.Context(), id, "")
	wantCode(t, err, fault.CodeInvocationNotFound)
}

func TestWhatCanBeReplayed(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" && r.Header.Get(headerReplay) == "" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	dead, good, later := w.accept(Request{Path: "/bad"}), w.accept(Request{}), w.accept(Request{NotBefore: time.Now().Add(time.Hour)})
	w.ends(dead)
	st := w.ends(good)
	r, err := w.q.Replay(t.Context(), dead, "")
	if err != nil || r.Before.State != functions.StateDead || r.Now.State != functions.StateSucceeded {
		t.Errorf("one that is dead: %+v, %v", r, err)
	}
	if r, err = w.q.Replay(t.Context(), later, ""); err != nil || r.Before.State != functions.StateAccepted || r.Now.Status != 200 {
		t.Errorf("one that waits: %+v, %v", r, err)
	}
	_, err = w.q.Replay(t.Context(), good, "")
	wantCode(t, err, fault.CodeConflict)
	all, err := w.q.Ended(t.Context(), hello, st.Accepted, st.Accepted.Add(time.Nanosecond), 10)
	if err != nil || len(all) != 1 || all[0].ID != good {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err = w.q.Ended(t.Context(), hello, time.Time{}, time.Now(), 10); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}
