package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// syncer is what the barrier needs of the operating system.
type syncer interface {
	// file makes the data of the file at path durable and tells which file that is: one that takes its place under the same name is another. ""
	// says that the filesystem does not tell; the error is fs.ErrNotExist where the file is gone.
	file(path string) (which string, err error)
	// dir makes the entries of the directory at path durable.
	dir(path string) error
	// second gives the file at path the second name that it keeps when it is replaced.
	second(path string) error
}

// fileSyncer is that of real files. It gives no second names where there are no spares.
type fileSyncer struct{ spares *spares }

func (fileSyncer) file(path string) (string, error) { return syncData(path) }
func (fileSyncer) dir(path string) error            { return syncPath(path) }

func (f fileSyncer) second(path string) error {
	if f.spares == nil {
		return nil
	}
	return f.spares.keep(path, ".barrier")
}

// barrier is the group commit over the server's block files.
//
// The server writes a message into the stream's newest block file before it acknowledges it, and syncs none of them: so a sync of the
// blocks that may have been written since the last one makes all of it durable. Blocks have growing numbers and only the newest is
// appended to; those that may hold unsynced messages are the newest one at the last sync and all that came after. Files are opened by
// path for each sync, because the server replaces a block's file when it compacts it. To have the new file's data on disk is not enough then: until the
// directory's entry is there, too, power loss brings the old file back, in which the messages of the last moment were never synced.
type barrier struct {
	root    string
	sync    syncer
	log     *slog.Logger
	failure *failure

	mu      sync.Mutex
	next    *batch
	stopped bool
	streams map[string]*blocks

	wake chan struct{}
	done chan struct{}
	// synced are the batches whose callers are to be called; told is closed when all were.
	synced chan *batch
	told   chan struct{}
}

// batch is what the callers of one sync wait for.
type batch struct {
	streams map[*blocks]struct{}
	callers int
	done    chan struct{}
	err     error
	// then are the callers that do not wait.
	then []func(error)
}

// maxTelling is how many batches may have been synced whose callers were not called yet; the next one waits.
const maxTelling = 16

func newBatch() *batch { return &batch{streams: map[*blocks]struct{}{}, done: make(chan struct{})} }

// newBarrier starts the committer; stop ends it.
func newBarrier(root string, streams []string, s syncer, f *failure, log *slog.Logger) *barrier {
	b := &barrier{
		root: root, sync: s, log: log, failure: f, next: newBatch(),
		streams: map[string]*blocks{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		synced: make(chan *batch, maxTelling), told: make(chan struct{}),
	}
	for _, name := range streams {
		b.streams[name] = &blocks{dir: filepath.Join(root, name, "msgs")}
	}
	go b.run()
	go b.tell()
	return b
}

// join makes the next sync one of these streams, too. Then, unless it is nil, is called after it.
func (b *barrier) join(streams []string, then func(error)) (*batch, error) {
	if err := b.failure.get(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, fault.New(fault.CodeUnavailable, "the store is closed")
	}
	mine := b.next
	for _, name := range streams {
		s, ok := b.streams[name]
		if !ok {
			return nil, fmt.Errorf("barrier: there is no stream %q", name)
		}
		mine.streams[s] = struct{}{}
	}
	mine.callers++
	if then != nil {
		mine.then = append(mine.then, then)
	}
	return mine, nil
}

// then calls then after the next sync of the streams.
func (b *barrier) then(then func(error), streams []string) {
	if _, err := b.join(streams, then); err != nil {
		then(err)
		return
	}
	b.signal()
}

func (b *barrier) wait(ctx context.Context, streams []string) error {
	mine, err := b.join(streams, nil)
	if err != nil {
		return err
	}
	b.signal()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return fault.Wrap(fault.CodeUnavailable, ctx.Err(), "waiting until it is on disk")
	}
}

func (b *barrier) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run commits one batch after another.
func (b *barrier) run() {
	defer close(b.done)
	defer close(b.synced)
	for range b.wake {
		b.mu.Lock()
		cur := b.next
		stopped := b.stopped
		b.next = newBatch()
		b.mu.Unlock()
		if len(cur.streams) > 0 {
			cur.err = b.commit(cur)
		}
		close(cur.done)
		if len(cur.then) > 0 {
			b.synced <- cur
		}
		if stopped {
			return
		}
	}
}

// tell calls those who do not wait, while the next sync runs.
func (b *barrier) tell() {
	defer close(b.told)
	for cur := range b.synced {
		for _, then := range cur.then {
			then(cur.err)
		}
	}
}

// stop commits what waits and ends the committer.
func (b *barrier) stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.signal()
	<-b.told
}

func (b *barrier) commit(cur *batch) error {
	if err := b.failure.get(); err != nil {
		return err
	}
	var err error
	if len(cur.streams) == 1 {
		for s := range cur.streams {
			err = s.sync(b.sync)
		}
	} else {
		// Syncs that run together share the filesystem's commit.
		var wg sync.WaitGroup
		errs := make(chan error, len(cur.streams))
		for s := range cur.streams {
			wg.Go(func() { errs <- s.sync(b.sync) })
		}
		wg.Wait()
		close(errs)
		for e := range errs {
			err = errors.Join(err, e)
		}
	}
	if err == nil {
		return nil
	}
	// After a failed sync the kernel may have dropped the dirty pages: a second one that succeeds would prove nothing.
	err = fault.Wrap(fault.CodeUnavailable, err, "the store could not be synced to disk").
		WithHint("nothing is accepted any more: check the disk, then restart tatami")
	if b.failure.set(err) {
		b.log.Error("sync failed, nothing is accepted any more", "err", err)
	}
	return err
}

// blocks are the block files of one stream. Used by one commit at a time.
type blocks struct {
	dir string
	// newest is the number of the newest block that was synced.
	newest int
	// files tells which files were synced as the blocks from newest on, with their entries in the directory.
	files map[int]string
	// known are the numbers from newest on as last read, valid while the directory's time of change stays modified.
	known    []int
	modified time.Time
	settled  bool
}

// settle is how old a directory's time of change must be before an equal one proves that nothing was made since: longer than the
// steps of the clock that filesystems use.
const settle = 50 * time.Millisecond

func (s *blocks) sync(sy syncer) error {
	found, err := s.list()
	if err != nil {
		return err
	}
	files := make(map[int]string, len(found))
	entered := true
	for _, n := range found {
		which, err := sy.file(s.path(n))
		if errors.Is(err, fs.ErrNotExist) {
			// A block that is gone held only messages that were removed.
			continue
		}
		if err != nil {
			return err
		}
		files[n] = which
		if which == "" || which != s.files[n] {
			entered = false
		}
	}
	if !entered {
		if err := sy.dir(s.dir); err != nil {
			return err
		}
		for n, which := range files {
			if s.files[n] != which || which == "" {
				if err := sy.second(s.path(n)); err != nil {
					return err
				}
			}
		}
	}
	for n := range files {
		s.newest = max(s.newest, n)
	}
	s.known = slices.DeleteFunc(s.known, func(n int) bool { return n < s.newest })
	s.files = files
	return nil
}

// path is the file of a block.
func (s *blocks) path(n int) string { return filepath.Join(s.dir, strconv.Itoa(n)+".blk") }

// list returns the numbers of the blocks that may hold unsynced messages.
func (s *blocks) list() ([]int, error) {
	info, err := os.Stat(s.dir)
	if err != nil {
		return nil, err
	}
	if s.settled && info.ModTime().Equal(s.modified) {
		return s.known, nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close()
	if err != nil {
		return nil, err
	}
	s.known = s.known[:0]
	for _, name := range names {
		if n, ok := blockNumber(name); ok && n >= s.newest {
			s.known = append(s.known, n)
		}
	}
	s.modified, s.settled = info.ModTime(), time.Since(info.ModTime()) > settle
	return s.known, nil
}
