package logs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tatami-faas/tatami/functions"
)

// punchStep is how much of a raw file is given back at a time.
const punchStep = 64 << 10

// rewindAt is the length, holes included, at which a raw file is cut to nothing as soon as all of it was read. It keeps an endless
// writer below what filesystems take as a file's size.
const rewindAt = 1 << 40

// raw is one file that the sandbox's side appends to.
type raw struct {
	stream Stream
	path   string
	f      *os.File
	// pos is how far the file was read, punched how far it was given back.
	pos, punched int64
	split        splitter
}

// read is how far the file may be forgotten: the line under way is read again after a restart.
func (r *raw) consumed() int64 { return max(0, r.pos-int64(len(r.split.part))) }

// source is the output of one instance.
type source struct {
	inst  functions.InstanceID
	rev   functions.RevisionID
	ref   functions.Ref
	store *store

	mu      sync.Mutex
	files   [2]*raw
	posFile *os.File
	// written is what posFile says.
	written [2]int64
	bucket  bucket
	ring    ring
	closed  bool

	// dropped bytes were not told yet.
	dropped int64
	told    time.Time
}

// progress says what is left of a file after its turn.
type progress uint8

const (
	idle progress = iota
	more
	throttled
)

// turn reads one chunk of the file and keeps its lines.
func (l *Logs) turn(s *source, r *raw, buf []byte) progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return idle
	}
	return l.pump(s, r, buf, false)
}

// pump is turn with the lock held. Force reads regardless of the rate.
func (l *Logs) pump(s *source, r *raw, buf []byte, force bool) progress {
	now := time.Now()
	st, err := r.f.Stat()
	if err != nil {
		return idle
	}
	size := st.Size()
	if size < r.pos {
		r.pos, r.punched = 0, 0
		r.split = splitter{}
	}
	var lines []Line
	if behind := size - r.pos; behind > l.cfg.MaxBehind {
		// What is newest says most: keep the end.
		skip := behind - min(l.cfg.MaxBehind, int64(len(buf)))
		s.dropped += skip + int64(len(r.split.part))
		r.pos += skip
		r.split.drop()
	}
	lines = s.tell(lines, now, l.cfg.Rate, false)
	n := min(size-r.pos, int64(len(buf)))
	left := idle
	switch {
	case n == 0:
	case !force && (!s.bucket.ready(now, l.cfg.Rate, l.cfg.Burst) || !l.ready(now)):
		left = throttled
	default:
		got, err := r.f.ReadAt(buf[:n], r.pos)
		if got == 0 && err != nil {
			break
		}
		took := r.split.feed(buf[:got], l.cfg.MaxLine, func(text string, cut bool) {
			lines = append(lines, Line{Time: now, Instance: s.inst, Revision: s.rev, Stream: r.stream, Text: text, Cut: cut})
		})
		r.pos += int64(took)
		cost := int64(took) + int64(len(lines))*lineCost
		s.bucket.take(cost)
		l.take(cost)
		if r.pos < size {
			left = more
		}
	}
	l.keep(s, lines)
	l.giveBack(r, size)
	s.checkpoint()
	return left
}

// lineCost is what a line costs besides its bytes, so that empty ones count too.
const lineCost = 128

// tell adds the marker for dropped output, at most once a second unless it is now or never.
func (s *source) tell(lines []Line, now time.Time, rate int64, last bool) []Line {
	if s.dropped == 0 || !last && now.Sub(s.told) < time.Second {
		return lines
	}
	text := fmt.Sprintf("%s of output dropped here: it came faster than %s/s",
		humanize.IBytes(uint64(s.dropped)), humanize.IBytes(uint64(rate)))
	s.dropped, s.told = 0, now
	return append(lines, Line{Time: now, Instance: s.inst, Revision: s.rev, Stream: Platform, Text: text})
}

func (l *Logs) keep(s *source, lines []Line) {
	for _, line := range lines {
		s.ring.add(line)
	}
	if first, err := s.store.append(lines); first {
		l.log.Error("log lines cannot be kept", "fn", s.ref.String(), "inst", s.inst, "err", err)
	}
}

// giveBack returns what was read to the filesystem.
func (l *Logs) giveBack(r *raw, size int64) {
	done := r.consumed()
	if r.pos == size && done == r.pos && size > rewindAt {
		if r.f.Truncate(0) == nil {
			r.pos, r.punched = 0, 0
		}
		return
	}
	to := done &^ (4096 - 1)
	if to-r.punched < punchStep {
		return
	}
	if err := punch(r.f, r.punched, to); err != nil {
		// The filesystem cannot: cut the file once all of it was read. What is written in this very moment is lost.
		if r.pos == size && size >= l.cfg.MaxBehind && r.f.Truncate(0) == nil {
			r.pos, r.punched = 0, 0
			r.split = splitter{}
		}
		return
	}
	r.punched = to
}

// checkpoint writes down how far the files were read, for the next run of this process.
func (s *source) checkpoint() {
	now := [2]int64{s.files[0].consumed(), s.files[1].consumed()}
	if s.posFile == nil || now == s.written {
		return
	}
	if _, err := s.posFile.WriteAt(fmt.Appendf(nil, "%020d\n%020d\n", now[0], now[1]), 0); err == nil {
		s.written = now
	}
}

// resume reads the checkpoint of an earlier run, if there is one.
func (s *source) resume() {
	var out, err int64
	b := make([]byte, 64)
	n, _ := s.posFile.ReadAt(b, 0)
	if k, e := fmt.Sscanf(string(b[:n]), "%d\n%d\n", &out, &err); e != nil || k != 2 || out < 0 || err < 0 {
		return
	}
	for i, pos := range []int64{out, err} {
		r := s.files[i]
		if st, e := r.f.Stat(); e == nil && pos <= st.Size() {
			r.pos, r.punched = pos, pos&^(4096-1)
		}
	}
}

// behind reports whether a file has grown, or was cut, since it was read.
func (s *source) behind() bool {
	for _, r := range s.files {
		if st, err := r.f.Stat(); err == nil && st.Size() != r.pos {
			return true
		}
	}
	return false
}

// drain reads what there is, up to the bound, and ends the lines under way if the process is gone.
func (l *Logs) drain(s *source, final bool) {
	buf := make([]byte, chunk)
	for _, r := range s.files {
		// A writer that never stops must not hold the reader: what is there now is what is wanted.
		st, err := r.f.Stat()
		for err == nil && l.pump(s, r, buf, true) == more && r.pos < st.Size() {
		}
		if !final {
			continue
		}
		var lines []Line
		if len(r.split.part) > 0 {
			r.split.flush(func(text string, cut bool) {
				lines = append(lines, Line{Time: time.Now(), Instance: s.inst, Revision: s.rev, Stream: r.stream, Text: text, Cut: cut})
			})
		}
		l.keep(s, s.tell(lines, time.Now(), l.cfg.Rate, true))
	}
}

func (s *source) close() {
	s.closed = true
	for _, r := range s.files {
		if r != nil && r.f != nil {
			r.f.Close()
		}
	}
	if s.posFile != nil {
		s.posFile.Close()
	}
}

func openRaw(stream Stream, path string) (*raw, error) {
	// Written to only to give space back; never created: it belongs to the sandbox.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	return &raw{stream: stream, path: path, f: f}, nil
}

// bucket bounds a rate; it may go into debt by one chunk.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) ready(now time.Time, rate, burst int64) bool {
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else {
		b.tokens = min(float64(burst), b.tokens+now.Sub(b.at).Seconds()*float64(rate))
	}
	b.at = now
	return b.tokens > 0
}

func (b *bucket) take(n int64) { b.tokens -= float64(n) }

// ring holds the last lines of an instance.
type ring struct {
	lines []Line
	next  int
	bytes int
}

const (
	ringLines = 100
	ringBytes = 64 << 10
)

func (r *ring) add(l Line) {
	r.lines = append(r.lines, l)
	r.bytes += len(l.Text)
	for len(r.lines)-r.next > ringLines || r.bytes > ringBytes && len(r.lines)-r.next > 1 {
		r.bytes -= len(r.lines[r.next].Text)
		r.lines[r.next] = Line{}
		r.next++
	}
	if r.next > ringLines {
		r.lines = append([]Line(nil), r.lines[r.next:]...)
		r.next = 0
	}
}

func (r *ring) last(n int) []Line {
	all := r.lines[r.next:]
	return all[max(0, len(all)-n):]
}
