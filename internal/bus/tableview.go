package bus

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/internal/fault"
)

// viewStep is how often a view that has not shown all asks again what all is: the last message may have expired meanwhile.
const viewStep = 100 * time.Millisecond

const (
	// newestTry bounds one question for what is stored: it is lost where no server leads the stream.
	newestTry = time.Second
	// newestPatience is how long it is asked again: an election takes up to nine seconds, and more where a server has only just started.
	newestPatience = 20 * time.Second
)

// view calls see with the last entry of each key that matches, deleted ones too, and again where it changed meanwhile, in the order of the changes,
// then once with nil, and then with every change, until see returns false or ctx ends, which is no error. By the nil it has shown at least all that was
// stored when it was called: in a cluster, the server that gives the entries may be one that does not know the latest ones yet.
func (t *Table[T]) view(ctx context.Context, doing, match string, see func(jetstream.KeyValueEntry) bool, opts ...jetstream.WatchOpt) error {
	if match == "" {
		match = ">"
	}
	newest, err := t.newest(ctx, match)
	if err != nil {
		return t.viewFault(ctx, err, doing, match)
	}
	f := feed[T]{t: t, match: match, opts: opts, doubt: t.bus.sight.doubted()}
	if f.w, err = t.bus.watch(ctx, t.kv, match, opts...); err != nil {
		return t.viewFault(ctx, err, doing, match)
	}
	defer func() { endWatch(f.w) }()
	var again <-chan time.Time
	listed, told := false, false
	for {
		select {
		case e, ok := <-f.w.Updates():
			switch {
			case !ok:
				return t.viewFault(ctx, nats.ErrConnectionClosed, doing, match)
			case e == nil:
				listed = true
			default:
				if f.shown = e.Revision(); !see(e) {
					return nil
				}
			}
		case <-again:
			if newest, err = t.newest(ctx, match); err != nil {
				return t.viewFault(ctx, err, doing, match)
			}
		case <-f.doubt:
			f.suspect()
		case <-f.check:
			f.revive(ctx)
		case <-ctx.Done():
			return nil
		}
		switch {
		case told || !listed:
		case f.shown < newest:
			again = time.After(viewStep)
		default:
			told, again = true, nil
			if !see(nil) {
				return nil
			}
		}
	}
}

// all returns the last entry of each key that matches and is not deleted, in the order of their change.
func (t *Table[T]) all(ctx context.Context, match string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	last := map[string]jetstream.KeyValueEntry{}
	whole := false
	err := t.view(ctx, "listing", match, func(e jetstream.KeyValueEntry) bool {
		switch {
		case e == nil:
			whole = true
		case e.Operation() == jetstream.KeyValuePut:
			last[e.Key()] = e
		default:
			delete(last, e.Key())
		}
		return !whole
	}, opts...)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, fault.Wrap(fault.CodeUnavailable, ctx.Err(), "listing %s", t.bucket)
	}
	return slices.SortedFunc(maps.Values(last), func(a, b jetstream.KeyValueEntry) int { return cmp.Compare(a.Revision(), b.Revision()) }), nil
}

// newest is the revision of the last entry of a cluster's table that matches, by the server that stores it; 0 where there is none, and for a server
// that stands alone, which knows all. It waits for an election.
func (t *Table[T]) newest(ctx context.Context, match string) (uint64, error) {
	if t.bus.cfg.Cluster == nil {
		return 0, nil
	}
	return insist(ctx, newestPatience, firstTry, newestTry, func(ctx context.Context) (uint64, error) { return t.askNewest(ctx, match) })
}

func (t *Table[T]) askNewest(ctx context.Context, match string) (uint64, error) {
	st, err := t.bus.js.Stream(ctx, t.stream)
	if err != nil {
		return 0, err
	}
	m, err := st.GetLastMsgForSubject(ctx, t.prefix+match)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}

// endWatch ends a watch. The library's goroutine behind it ends only when all that came has been taken; it closes the channel then, but not where the
// subscription had ended before the library looked for its end.
func endWatch(w jetstream.KeyWatcher) {
	_ = w.Stop()
	enough := time.After(newestTry)
	for {
		select {
		case _, open := <-w.Updates():
			if !open {
				return
			}
		case <-enough:
			return
		}
	}
}

// viewFault is what a view ends with: nothing where ctx has ended.
func (t *Table[T]) viewFault(ctx context.Context, err error, doing, match string) error {
	if ctx.Err() == nil {
		return t.fail(err, doing, match)
	}
	return nil
}
