package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spares are second names of the blocks' files.
//
// The server compacts a block by writing what is left of it to a new file, which it renames over the old one without a sync. On ext4 as it is mounted
// by default (dioread_nolock) the name may be on disk before the content is, whatever auto_da_alloc begins: power loss leaves zeros then where messages of
// any age were, although barriers had passed. So each file that a barrier vouches for has a second name, which goes to the file that replaces it only when
// that is on disk itself. Where the next start finds two files, it puts the old one back: it has all that the new one had, and the messages that are gone
// are gone by the marks which the server left of them in later blocks. A first second name needs no sync: the journal keeps the order of names.
//
// What a stream holds one message of a subject of, the server removes as soon as it has stored the next one, and with the last message of a block the
// block's file: the file may be gone on disk before the next message is there. So the second name of a file that is gone stays until what was stored
// until then is on disk. Where the next start finds it, it puts the file back: of two messages of a subject the server keeps the newer one.
type spares struct {
	// root has the streams' directories, dir one of spares for each.
	root, dir string
	streams   []string
	// latest are the streams that hold one message of a subject.
	latest map[string]bool
	log    *slog.Logger
	// durable returns when what a stream holds is on disk.
	durable func(stream string) error
	// seen is when the directory of a stream was changed last, as of the last look.
	seen map[string]time.Time
	// every is how long the next look may be away, wanted has one that is wanted at once.
	every  time.Duration
	wanted chan struct{}

	// done is closed when nobody watches any more; nil where nobody did.
	stop, done chan struct{}
}

const (
	// sparesDir is the directory of the spares within the data directory.
	sparesDir = "spares"
	// sparesEvery is how often the second names are brought up to date: until then the space of what is gone is not free.
	sparesEvery = time.Second
	// sparesPause is between any two looks, however often one is wanted.
	sparesPause = 50 * time.Millisecond
)

// newSpares gives all blocks second names.
func newSpares(root, dir string, l layout, log *slog.Logger) (*spares, error) {
	s := &spares{
		root: root, dir: dir, streams: l.names(), latest: l.latest(), log: log,
		durable: func(string) error { return syncFilesystem(root) },
		seen:    map[string]time.Time{}, every: sparesEvery, wanted: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for _, name := range s.streams {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.look(); err != nil {
		return nil, err
	}
	return s, nil
}

// watch sees to the blocks to come until close. Durable returns when what a stream holds is on disk.
func (s *spares) watch(durable func(stream string) error) {
	if s == nil {
		return
	}
	s.durable, s.done = durable, make(chan struct{})
	go s.run()
}

func (s *spares) run() {
	defer close(s.done)
	t := time.NewTicker(s.every)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		case <-s.wanted:
		}
		if err := s.look(); err != nil {
			s.log.Warn("blocks have no second names for now", "err", err)
		}
		select {
		case <-s.stop:
			return
		case <-time.After(sparesPause):
		}
	}
}

// hurry has the second names brought up to date soon: what is gone may make the room that somebody needs. It does not wait.
func (s *spares) hurry() {
	if s == nil {
		return
	}
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// close brings the second names up to date for the last time; nothing writes to the blocks any more.
func (s *spares) close() {
	if s == nil {
		return
	}
	close(s.stop)
	if s.done != nil {
		<-s.done
	}
	s.durable = func(string) error { return syncFilesystem(s.root) }
	if err := s.look(); err != nil {
		s.log.Warn("blocks are left without second names", "err", err)
	}
}

// look brings the second names of all streams up to date.
func (s *spares) look() error {
	var all error
	for _, name := range s.streams {
		all = errors.Join(all, s.lookAt(name))
	}
	return all
}

// lookAt brings the second names of a stream up to date where its directory has changed.
func (s *spares) lookAt(stream string) error {
	dir := filepath.Join(s.root, stream, "msgs")
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if s.seen[stream].Equal(info.ModTime()) {
		return nil
	}
	// Read before the blocks: what has its second name since is no block that is gone.
	spare, err := os.ReadDir(filepath.Join(s.dir, stream))
	if err != nil {
		return err
	}
	blocks, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range blocks {
		if _, ok := blockNumber(e.Name()); !ok {
			continue
		}
		there[e.Name()] = true
		if err := s.keep(filepath.Join(dir, e.Name()), ".look"); err != nil {
			return err
		}
	}
	var gone []string
	for _, e := range spare {
		if _, ok := blockNumber(e.Name()); ok && !there[e.Name()] {
			gone = append(gone, filepath.Join(s.dir, stream, e.Name()))
		}
	}
	if err := s.forget(stream, gone); err != nil {
		return err
	}
	// A change within the clock's step might not show.
	if s.seen[stream] = info.ModTime(); time.Since(info.ModTime()) < settle {
		delete(s.seen, stream)
	}
	return nil
}

// forget removes second names of files that are gone, when what they held is not needed any more.
func (s *spares) forget(stream string, gone []string) error {
	if len(gone) == 0 {
		return nil
	}
	if s.latest[stream] {
		if err := s.durable(stream); err != nil {
			return err
		}
	}
	for _, spare := range gone {
		if err := removeAll(spare); err != nil {
			return err
		}
	}
	return nil
}

// keep gives the file of a block its second name, when it is on disk. Suffix tells callers apart that do so at the same time.
func (s *spares) keep(block, suffix string) error {
	spare := filepath.Join(s.dir, filepath.Base(filepath.Dir(filepath.Dir(block))), filepath.Base(block))
	for {
		f, err := os.Open(block)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		done, err := keepFile(f, block, spare, spare+suffix)
		_ = f.Close()
		if done || err != nil {
			return err
		}
	}
}

// keepFile makes spare a name of an open file; done says that it is one. The file may have been replaced meanwhile.
func keepFile(f *os.File, block, spare, temporary string) (done bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	had, err := os.Stat(spare)
	replaced := err == nil
	if replaced {
		if os.SameFile(info, had) {
			return true, nil
		}
		if err := retryInterrupted(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
			return false, &os.PathError{Op: "fdatasync", Path: block, Err: err}
		}
		if err := syncPath(filepath.Dir(block)); err != nil {
			return false, err
		}
	}
	if err := removeAll(temporary); err != nil {
		return false, err
	}
	err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.AT_FDCWD, temporary, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.LinkError{Op: "link", Old: block, New: temporary, Err: err}
	}
	if err := os.Rename(temporary, spare); err != nil || !replaced {
		return false, err
	}
	// The old file may lack what was stored in it last, which is on disk in the new one only.
	return false, syncPath(filepath.Dir(spare))
}

// removeAll removes a file that may be gone.
func removeAll(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// restoreSpares puts back the files of blocks that were replaced by one of which nothing says that it is on disk, and those that went for messages of which
// nothing says so, before the server starts.
func restoreSpares(root, dir string, latest map[string]bool, log *slog.Logger) error {
	all, err := filepath.Glob(filepath.Join(dir, "*", "*.blk"))
	if err != nil {
		return err
	}
	for _, spare := range all {
		stream := filepath.Base(filepath.Dir(spare))
		block := filepath.Join(root, stream, "msgs", filepath.Base(spare))
		had, err := os.Stat(spare)
		if err != nil {
			return err
		}
		now, err := os.Stat(block)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if !latest[stream] {
				// What it held was removed when what follows from it was on disk.
				continue
			}
		case err != nil:
			return err
		case os.SameFile(now, had):
			continue
		}
		log.Info("a block was being replaced when the process ended: the old one stays", "stream", stream, "block", filepath.Base(block))
		if err := putBack(spare, block); err != nil {
			return fmt.Errorf("putting back a block: %w", err)
		}
	}
	return nil
}

// putBack makes a block's file what its second name is, and has the server learn anew what the blocks hold.
func putBack(spare, block string) error {
	temporary := strings.TrimSuffix(block, ".blk") + ".back"
	if err := removeAll(temporary); err != nil {
		return err
	}
	if err := os.Link(spare, temporary); err != nil {
		return err
	}
	known, err := filepath.Glob(filepath.Join(filepath.Dir(block), "*.db"))
	if err != nil {
		return err
	}
	for _, path := range known {
		if err := removeAll(path); err != nil {
			return err
		}
	}
	if err := os.Rename(temporary, block); err != nil {
		return err
	}
	return syncPath(filepath.Dir(block))
}

// blockNumber reads the number of a block from its file's name; false for what is none.
func blockNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, ".blk")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}
