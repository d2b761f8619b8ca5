package invoke

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// maxMisses bounds the reads of the store for names that have no route.
	maxMisses = 16
	// maxTombs bounds what is remembered of deleted functions: long enough that no read that began before the deletion ends after it.
	maxTombs = 1024
)

// routes keeps the functions' routes as the store has them.
type routes struct {
	bus *bus.Bus
	reg *registry
	log *slog.Logger
	// onChange is called after a function's route changed.
	onChange func(*function)
	misses   chan struct{}

	mu sync.Mutex
	// revisions holds every revision there is.
	revisions map[functions.RevisionID]*functions.Revision
	// seen is the store's revision of each function's record that was applied last.
	seen map[functions.Ref]uint64
	// tombs lists deleted functions that are still in seen, the oldest first.
	tombs   []functions.Ref
	applied uint64
	// advanced is closed and replaced when applied grows.
	advanced chan struct{}
}

func newRoutes(b *bus.Bus, reg *registry, onChange func(*function), log *slog.Logger) *routes {
	return &routes{
		bus: b, reg: reg, log: log, onChange: onChange, misses: make(chan struct{}, maxMisses),
		revisions: map[functions.RevisionID]*functions.Revision{}, seen: map[functions.Ref]uint64{}, advanced: make(chan struct{}),
	}
}

// watch follows the tables until ctx ends. It calls synced once what existed is applied.
func (t *routes) watch(ctx context.Context, synced func()) error {
	g, ctx := errgroup.WithContext(ctx)
	haveRevisions, haveQuotas := make(chan struct{}), make(chan struct{})
	g.Go(func() error {
		return t.bus.Revisions().Watch(ctx, "", func(ev bus.Event[functions.Revision]) {
			if ev.Synced {
				close(haveRevisions)
				return
			}
			t.revision(ctx, ev)
		})
	})
	g.Go(func() error {
		return t.bus.Quotas().Watch(ctx, "", func(ev bus.Event[functions.Quota]) {
			if ev.Synced {
				close(haveQuotas)
				return
			}
			t.reg.setQuota(ev.Key, ev.Value)
		})
	})
	g.Go(func() error {
		for _, c := range []chan struct{}{haveRevisions, haveQuotas} {
			select {
			case <-c:
			case <-ctx.Done():
				return nil
			}
		}
		t.reg.begin()
		defer t.reg.end()
		return t.bus.Functions().Watch(ctx, "", func(ev bus.Event[functions.Function]) {
			if ev.Synced {
				t.reg.end()
				synced()
				return
			}
			t.function(ctx, ev)
		})
	})
	return g.Wait()
}

func (t *routes) revision(ctx context.Context, ev bus.Event[functions.Revision]) {
	ns, rest, _ := strings.Cut(ev.Key, ".")
	name, id, _ := strings.Cut(rest, ".")
	rev := ev.Value
	t.mu.Lock()
	if ev.Deleted {
		delete(t.revisions, functions.RevisionID(id))
	} else {
		t.revisions[rev.ID] = forCalls(rev)
	}
	t.mu.Unlock()
	if ev.Deleted {
		return
	}
	// A function's record may have come before its revision's.
	f := t.reg.find(functions.Ref{Namespace: ns, Name: name})
	if f == nil {
		return
	}
	if rt := f.route.Load(); rt != nil && rt.live == nil && rt.serving == rev.ID {
		t.refresh(ctx, f.ref)
	}
}

// forCalls is what carrying calls to instances takes of a revision, without what starting them does: the gateway holds every revision there is, and each
// collection of garbage looks at all that is held.
func forCalls(rev functions.Revision) *functions.Revision {
	rev.Artifact, rev.Reason, rev.Logs = functions.Artifact{}, "", nil
	c := &rev.Config
	c.Command, c.Env, c.Labels, c.Placement = nil, nil, nil, functions.Placement{}
	return &rev
}

// newRoute is the route by a function's record, where live is the revision that takes the traffic.
func newRoute(rec *functions.Function, live *functions.Revision) *route {
	rt := &route{serving: rec.Live, coming: rec.Candidate, live: live}
	if live != nil {
		// The same text, of which there need be only one.
		rt.serving = live.ID
	}
	return rt
}

func (t *routes) function(ctx context.Context, ev bus.Event[functions.Function]) {
	ns, name, _ := strings.Cut(ev.Key, ".")
	t.apply(ctx, functions.Ref{Namespace: ns, Name: name}, ev.Value, ev.Revision, ev.Deleted)
	t.mu.Lock()
	defer t.mu.Unlock()
	if ev.Revision > t.applied {
		t.applied = ev.Revision
		close(t.advanced)
		t.advanced = make(chan struct{})
	}
}

// apply publishes the route of a record unless a newer one was applied.
func (t *routes) apply(ctx context.Context, ref functions.Ref, rec functions.Function, revision uint64, deleted bool) {
	var live *functions.Revision
	if !deleted && rec.Live != "" {
		live = t.lookup(ctx, ref, rec.Live)
	}
	t.mu.Lock()
	if revision < t.seen[ref] {
		t.mu.Unlock()
		return
	}
	t.seen[ref] = revision
	if deleted {
		t.buryLocked(ref)
	}
	f := t.reg.find(ref)
	if f == nil && deleted {
		t.mu.Unlock()
		return
	}
	f = t.reg.get(ref)
	if deleted {
		f.route.Store(nil)
	} else {
		f.route.Store(newRoute(&rec, live))
	}
	t.mu.Unlock()
	t.onChange(f)
}

func (t *routes) buryLocked(ref functions.Ref) {
	t.tombs = append(t.tombs, ref)
	if len(t.tombs) <= maxTombs {
		return
	}
	old := t.tombs[0]
	t.tombs = t.tombs[1:]
	if f := t.reg.find(old); f == nil || f.route.Load() == nil {
		delete(t.seen, old)
	}
}

// lookup returns nil for a revision that has no readable record.
func (t *routes) lookup(ctx context.Context, ref functions.Ref, id functions.RevisionID) *functions.Revision {
	t.mu.Lock()
	rev := t.revisions[id]
	t.mu.Unlock()
	if rev != nil {
		return rev
	}
	v, _, err := t.bus.Revisions().Get(ctx, bus.RevisionKey(ref, id))
	if err != nil {
		if ctx.Err() == nil {
			t.log.Error("a function's live revision cannot be read", "fn", ref.String(), "rev", id, "err", err)
		}
		return nil
	}
	return forCalls(v)
}

// refresh reads a function's record from the store and applies it.
func (t *routes) refresh(ctx context.Context, ref functions.Ref) {
	rec, rev, err := t.bus.Functions().Get(ctx, bus.FunctionKey(ref))
	if err == nil {
		t.apply(ctx, ref, rec, rev, false)
	}
}

// find returns a function that has a route. A name without one, or without a live revision, is looked for in the store once before that is a fault:
// another server may have told its caller of what the watch has not brought yet.
func (t *routes) find(ctx context.Context, ref functions.Ref) (*function, *route, error) {
	f, rt := t.known(ref)
	if rt != nil && rt.live != nil {
		return f, rt, nil
	}
	if err := ref.ValidateRunning(); err != nil {
		return nil, nil, err
	}
	select {
	case t.misses <- struct{}{}:
		defer func() { <-t.misses }()
	case <-ctx.Done():
		return nil, nil, fault.Wrap(fault.CodeUnavailable, ctx.Err(), "looking for function %s", ref)
	}
	rec, rev, err := t.bus.Functions().Get(ctx, bus.FunctionKey(ref))
	switch {
	case err == nil:
		t.apply(ctx, ref, rec, rev, false)
	case fault.Is(err, fault.CodeFunctionNotFound):
		return nil, nil, notFound(ref)
	case rt == nil:
		return nil, nil, err
	}
	if f, rt = t.known(ref); rt == nil {
		return nil, nil, notFound(ref)
	}
	return f, rt, nil
}

// known returns a function and its route by the table; the route is nil where the table has none.
func (t *routes) known(ref functions.Ref) (*function, *route) {
	f := t.reg.find(ref)
	if f == nil {
		return nil, nil
	}
	return f, f.route.Load()
}

func notFound(ref functions.Ref) error {
	return fault.New(fault.CodeFunctionNotFound, "there is no function %s in namespace %s", ref.Name, ref.Namespace).
		WithHint("list what there is: tatami fn ls --namespace %s", ref.Namespace)
}

// waitApplied returns once the routes hold the given revision of the functions table.
func (t *routes) waitApplied(ctx context.Context, revision uint64) error {
	for {
		t.mu.Lock()
		done, advanced := t.applied >= revision, t.advanced
		t.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fault.Wrap(fault.CodeUnavailable, ctx.Err(), "the gateway has not taken over the change yet").
				WithHint("it will; look again with: tatami status")
		}
	}
}
