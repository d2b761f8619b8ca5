package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// silenceStep is the wait between two looks at whether a view is silent, of which there are silenceLooks once a server is not heard: the library
	// itself finds out within ten seconds that the server is gone that feeds a watch.
	silenceStep  = 300 * time.Millisecond
	silenceLooks = 40
)

// feed is the watch behind a view. The server that feeds it may be one that is gone, or parted from this one: nothing says so, the view is silent. So
// while a server is missed it is asked what there is to be shown, and the watch begun anew, from where it was, where that does not come.
type feed[T any] struct {
	t     *Table[T]
	match string
	opts  []jetstream.WatchOpt
	w     jetstream.KeyWatcher
	// shown is the revision that the view showed last, behind one that it should have shown by the next look.
	shown, behind uint64
	// doubt is closed when a server is not heard any more; check is when to look next, and looks how often.
	doubt <-chan struct{}
	check <-chan time.Time
	looks int
}

// suspect has the feed be looked at for a while.
func (f *feed[T]) suspect() {
	f.doubt = f.t.bus.sight.doubted()
	f.behind, f.looks, f.check = 0, silenceLooks, time.After(silenceStep)
}

// revive begins the watch anew if the view has not shown by now what it should have at the last look.
func (f *feed[T]) revive(ctx context.Context) {
	if f.looks--; f.looks > 0 {
		f.check = time.After(silenceStep)
	} else {
		f.check = nil
	}
	if f.behind > f.shown {
		opts := append(f.opts[:len(f.opts):len(f.opts)], jetstream.ResumeFromRevision(f.shown+1))
		w, err := beginWatch(ctx, watchTry, f.t.kv, f.match, opts...)
		if err != nil {
			f.t.bus.log.Debug("a view that is silent has no other watch yet", "bucket", f.t.bucket, "err", err)
			return
		}
		f.t.bus.log.Info("a view was silent, and is fed anew", "bucket", f.t.bucket)
		endWatch(f.w)
		f.w, f.behind = w, 0
		return
	}
	asked, cancel := context.WithTimeout(ctx, silenceStep)
	defer cancel()
	if newest, err := f.t.askNewest(asked, f.match); err == nil {
		f.behind = newest
	}
}
