package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tatami-faas/tatami/functions"
)

// Config bounds what logs may take. Zero fields stand for their defaults.
type Config struct {
	// Dir holds the retained lines, by function. Required.
	Dir string
	// PosDir holds how far each raw file was read. Required; it lives as long as the raw files, so beside them.
	PosDir string
	// MaxLine is the longest line in bytes; the rest of a longer one is left out. Default 16 KiB.
	MaxLine int
	// Rate is what one instance may write a second for long, in bytes; each line counts 128 more. Default 4 MiB.
	Rate int64
	// Burst is what one instance may write at once beyond Rate. Default 8 MiB.
	Burst int64
	// TotalRate bounds all instances together, in bytes a second. Default 32 MiB.
	TotalRate int64
	// MaxBehind is how much unread output a raw file holds before the oldest of it is dropped. Default 4 MiB.
	MaxBehind int64
	// MaxFile is the size of one of a function's two retained files. Default 8 MiB.
	MaxFile int64
	// MaxTotal is the size of all retained files together; the functions that were silent longest lose theirs. Default 1 GiB.
	MaxTotal int64
	// MaxAge is how long the lines of a function that is silent are kept. Default 7 days.
	MaxAge time.Duration
}

func (c Config) withDefaults() Config {
	or := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if c.MaxLine == 0 {
		c.MaxLine = 16 << 10
	}
	or(&c.Rate, 4*functions.MiB)
	or(&c.Burst, 8*functions.MiB)
	or(&c.TotalRate, 32*functions.MiB)
	or(&c.MaxBehind, 4*functions.MiB)
	or(&c.MaxFile, 8*functions.MiB)
	or(&c.MaxTotal, functions.GiB)
	if c.MaxAge == 0 {
		c.MaxAge = 7 * 24 * time.Hour
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" || c.PosDir == "" {
		return errors.New("logs: Dir and PosDir are required")
	}
	if c.MaxLine < 16 || c.Rate < 1 || c.Burst < 1 || c.TotalRate < 1 || c.MaxBehind < 1 || c.MaxFile < 1 || c.MaxTotal < 1 || c.MaxAge < 0 {
		return errors.New("logs: a bound is too small")
	}
	return nil
}

// chunk is how much of a file is read in one turn.
const chunk = 64 << 10

// Logs captures, keeps and serves the output of instances.
type Logs struct {
	cfg Config
	log *slog.Logger
	// ended is closed when Run has returned: followers end.
	ended chan struct{}
	kick  chan struct{}

	mu      sync.Mutex
	watcher *fsnotify.Watcher
	sources map[functions.InstanceID]*source
	paths   map[string]*file
	dirs    map[string]int
	stores  map[functions.Ref]*store
	// dirty files have something to read, in the order of their turns.
	dirty []*file

	totalMu sync.Mutex
	total   bucket
}

// file is one raw file in the round of turns.
type file struct {
	source *source
	raw    *raw
	queued bool
}

// Source is an instance whose output is to be captured.
type Source struct {
	Instance functions.InstanceID
	Ref      functions.Ref
	Revision functions.RevisionID
	// Stdout and Stderr are the raw files.
	Stdout, Stderr string
}

// New makes a Logs; it starts nothing.
func New(cfg Config, log *slog.Logger) (*Logs, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Logs{
		cfg: cfg, log: log, ended: make(chan struct{}), kick: make(chan struct{}, 1),
		sources: map[functions.InstanceID]*source{}, paths: map[string]*file{}, dirs: map[string]int{}, stores: map[functions.Ref]*store{},
	}, nil
}

// Attach begins to capture. An instance of an earlier run goes on where that stopped. Attaching twice is no error.
func (l *Logs) Attach(src Source) error {
	if err := os.MkdirAll(l.cfg.PosDir, 0o700); err != nil {
		return fmt.Errorf("logs of %s: %w", src.Instance, err)
	}
	s := &source{inst: src.Instance, rev: src.Revision, ref: src.Ref}
	for i, in := range []struct {
		stream Stream
		path   string
	}{{Stdout, src.Stdout}, {Stderr, src.Stderr}} {
		r, err := openRaw(in.stream, in.path)
		if err != nil {
			s.close()
			return fmt.Errorf("logs of %s: %w", src.Instance, err)
		}
		s.files[i] = r
	}
	pos, err := os.OpenFile(l.posPath(src.Instance), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.close()
		return fmt.Errorf("logs of %s: %w", src.Instance, err)
	}
	s.posFile = pos
	s.resume()

	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.sources[src.Instance]; twice {
		s.close()
		return nil
	}
	s.store = l.acquireLocked(src.Ref)
	l.sources[src.Instance] = s
	for _, r := range s.files {
		f := &file{source: s, raw: r}
		l.paths[r.path] = f
		l.watch(filepath.Dir(r.path))
		l.mark(f)
	}
	l.wake()
	return nil
}

// watch has the directory watched, once. A directory that cannot be is looked at once a second.
func (l *Logs) watch(dir string) {
	l.dirs[dir]++
	if l.dirs[dir] > 1 || l.watcher == nil {
		return
	}
	if err := l.watcher.Add(dir); err != nil {
		l.log.Warn("directory of logs cannot be watched; looking at it once a second", "dir", dir, "err", err)
	}
}

// Sync reads what an instance has written so far, past any rate.
func (l *Logs) Sync(inst functions.InstanceID) {
	if s := l.source(inst); s != nil {
		l.sync(s)
	}
}

func (l *Logs) sync(s *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.behind() {
		l.drain(s, false)
	}
}

// syncAll is Sync of the instances whose lines are asked for.
func (l *Logs) syncAll(q Query) {
	l.mu.Lock()
	var asked []*source
	for _, s := range l.sources {
		if s.ref == q.Ref && (q.Instance == "" || s.inst == q.Instance) {
			asked = append(asked, s)
		}
	}
	l.mu.Unlock()
	for _, s := range asked {
		l.sync(s)
	}
}

// Note adds the platform's word to an instance's log.
func (l *Logs) Note(inst functions.InstanceID, text string) {
	if s := l.source(inst); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.keep(s, []Line{{Time: time.Now(), Instance: s.inst, Revision: s.rev, Stream: Platform, Text: text}})
	}
}

// Last returns the last lines that an instance wrote, as text.
func (l *Logs) Last(inst functions.InstanceID, n int) []string {
	s := l.source(inst)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, line := range s.ring.last(n) {
		out = append(out, line.Text)
	}
	return out
}

// Finish reads the rest of an instance that has ended, adds the platform's word if there is one, and captures no more. Its raw files may
// be gone already. It returns the last lines the instance wrote, at most n.
func (l *Logs) Finish(inst functions.InstanceID, note string, n int) []string {
	return l.detach(inst, func(s *source) []string {
		l.drain(s, true)
		var out []string
		for _, line := range s.ring.last(n) {
			out = append(out, line.Text)
		}
		if note != "" {
			l.keep(s, []Line{{Time: time.Now(), Instance: s.inst, Revision: s.rev, Stream: Platform, Text: note}})
		}
		_ = os.Remove(l.posPath(inst))
		return out
	})
}

// Leave stops capturing an instance that goes on running; a later Attach goes on from here.
func (l *Logs) Leave(inst functions.InstanceID) {
	l.detach(inst, func(s *source) []string { l.drain(s, false); return nil })
}

func (l *Logs) detach(inst functions.InstanceID, end func(*source) []string) []string {
	l.mu.Lock()
	s := l.sources[inst]
	if s == nil {
		l.mu.Unlock()
		return nil
	}
	delete(l.sources, inst)
	for _, r := range s.files {
		delete(l.paths, r.path)
		dir := filepath.Dir(r.path)
		if l.dirs[dir]--; l.dirs[dir] == 0 {
			delete(l.dirs, dir)
			if l.watcher != nil {
				_ = l.watcher.Remove(dir) // gone with its directory already, or still there
			}
		}
	}
	l.mu.Unlock()

	s.mu.Lock()
	out := end(s)
	s.close()
	s.mu.Unlock()
	l.release(s.store)
	return out
}

// Prune removes the positions of instances other than those named, which an earlier run left.
func (l *Logs) Prune(keep []functions.InstanceID) {
	entries, err := os.ReadDir(l.cfg.PosDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), posSuffix); ok && !slices.Contains(keep, functions.InstanceID(id)) {
			_ = os.Remove(filepath.Join(l.cfg.PosDir, e.Name()))
		}
	}
}

const posSuffix = ".pos"

func (l *Logs) posPath(inst functions.InstanceID) string {
	return filepath.Join(l.cfg.PosDir, string(inst)+posSuffix)
}

func (l *Logs) source(inst functions.InstanceID) *source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[inst]
}

func (l *Logs) refOf(inst functions.InstanceID) (functions.Ref, bool) {
	if s := l.source(inst); s != nil {
		return s.ref, true
	}
	return functions.Ref{}, false
}

func (l *Logs) acquire(ref functions.Ref) *store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acquireLocked(ref)
}

func (l *Logs) acquireLocked(ref functions.Ref) *store {
	s := l.stores[ref]
	if s == nil {
		s = &store{ref: ref, dir: filepath.Join(l.cfg.Dir, ref.Namespace, ref.Name), bound: l.cfg.MaxFile}
		l.stores[ref] = s
	}
	s.refs++
	return s
}

func (l *Logs) release(s *store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.refs--; s.refs == 0 {
		delete(l.stores, s.ref)
		s.close()
	}
}

func (l *Logs) ready(now time.Time) bool {
	l.totalMu.Lock()
	defer l.totalMu.Unlock()
	return l.total.ready(now, l.cfg.TotalRate, l.cfg.TotalRate)
}

func (l *Logs) take(n int64) {
	l.totalMu.Lock()
	defer l.totalMu.Unlock()
	l.total.take(n)
}

// sweep removes what was silent for too long, and the longest silent ones while all of it is too much.
func (l *Logs) sweep(now time.Time) {
	type entry struct {
		dir  string
		at   time.Time
		size int64
	}
	var all []entry
	var sum int64
	dirs, err := filepath.Glob(filepath.Join(l.cfg.Dir, "*", "*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		e := entry{dir: dir}
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // what vanished meanwhile does not count
			}
			if st, err := d.Info(); err == nil {
				e.size += st.Size()
				if st.ModTime().After(e.at) {
					e.at = st.ModTime()
				}
			}
			return nil
		})
		all = append(all, e)
		sum += e.size
	}
	slices.SortFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	for _, e := range all {
		if sum <= l.cfg.MaxTotal && now.Sub(e.at) <= l.cfg.MaxAge {
			break
		}
		if !l.remove(e.dir) {
			continue
		}
		sum -= e.size
	}
}

// remove removes the retained files of a function nobody writes or reads.
func (l *Logs) remove(dir string) bool {
	ref := functions.Ref{Namespace: filepath.Base(filepath.Dir(dir)), Name: filepath.Base(dir)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stores[ref] != nil {
		return false
	}
	if err := os.RemoveAll(dir); err != nil {
		l.log.Warn("retained logs cannot be removed", "fn", ref.String(), "err", err)
		return false
	}
	_ = os.Remove(filepath.Dir(dir)) // the namespace's, if it is empty now
	return true
}

// Run captures until ctx ends; then followers end, and what was attached is left as by Leave.
func (l *Logs) Run(ctx context.Context) error {
	w, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		close(l.ended)
		return fmt.Errorf("logs: watching files: %w", err)
	}
	l.mu.Lock()
	l.watcher = w
	for dir := range l.dirs {
		if err := w.Add(dir); err != nil {
			l.log.Warn("directory of logs cannot be watched; looking at it once a second", "dir", dir, "err", err)
		}
	}
	l.mu.Unlock()
	l.loop(ctx, w)

	l.mu.Lock()
	l.watcher = nil
	left := make([]functions.InstanceID, 0, len(l.sources))
	for id := range l.sources {
		left = append(left, id)
	}
	l.mu.Unlock()
	for _, id := range left {
		l.Leave(id)
	}
	close(l.ended)
	return w.Close()
}
