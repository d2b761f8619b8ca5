package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/tatami-faas/tatami/functions"
)

// store keeps the lines of one function: two files, the older of which goes when the newer is full.
type store struct {
	ref   functions.Ref
	dir   string
	bound int64

	// refs counts sources and readers; guarded by Logs.mu.
	refs int

	mu        sync.Mutex
	f         *os.File
	size      int64
	buf       bytes.Buffer
	followers map[*follower]struct{}
	// failed says that the last write failed, so that it is logged once.
	failed bool
}

const (
	currentName = "log.jsonl"
	olderName   = "log.1.jsonl"
)

// follower is a reader that waits for further lines. What does not fit into its buffer is counted and left out.
type follower struct {
	lines chan Line
	match func(Line) bool
	// dropped counts lines left out since the last marker; guarded by store.mu.
	dropped int
}

// offer hands the line over if there is room for it, and for the marker of what was left out before it.
func (f *follower) offer(l Line) {
	if !f.match(l) {
		return
	}
	need := 1
	if f.dropped > 0 {
		need = 2
	}
	// Only the holder of store.mu sends, so the room cannot shrink meanwhile.
	if cap(f.lines)-len(f.lines) < need {
		f.dropped++
		return
	}
	if f.dropped > 0 {
		f.lines <- f.marker(l)
	}
	f.lines <- l
}

func (f *follower) marker(next Line) Line {
	text := fmt.Sprintf("%d lines are not shown here: the reader is slower than the output", f.dropped)
	f.dropped = 0
	return Line{Time: next.Time, Instance: next.Instance, Revision: next.Revision, Stream: Platform, Text: text}
}

// append keeps the lines and hands them to the followers. The lines reach the followers even if the disk takes none.
func (s *store) append(lines []Line) (first bool, err error) {
	if len(lines) == 0 {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.write(lines)
	first = err != nil && !s.failed
	s.failed = err != nil
	for f := range s.followers {
		for _, l := range lines {
			f.offer(l)
		}
	}
	return first, err
}

func (s *store) write(lines []Line) error {
	s.buf.Reset()
	for _, l := range lines {
		if err := encode(&s.buf, l); err != nil {
			return err
		}
	}
	if s.f != nil && s.size+int64(s.buf.Len()) > s.bound {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	if s.f == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	n, err := s.f.Write(s.buf.Bytes())
	s.size += int64(n)
	if s.buf.Cap() > 1<<20 {
		s.buf = bytes.Buffer{}
	}
	return err
}

func (s *store) rotate() error {
	s.f.Close()
	s.f = nil
	return os.Rename(filepath.Join(s.dir, currentName), filepath.Join(s.dir, olderName))
}

// open opens the current file for appending; a line that a crash tore is ended, so that it spoils no other.
func (s *store) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.dir, currentName)
	if newer(path) {
		if err := os.Rename(path, filepath.Join(s.dir, olderName)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	s.size = st.Size()
	head := []byte(nil)
	if s.size == 0 {
		head = fmt.Appendf(nil, "{\"schema\":%d,\"x\":\"\"}\n", Schema)
	} else {
		var last [1]byte
		if _, err := f.ReadAt(last[:], s.size-1); err == nil && last[0] != '\n' {
			head = []byte{'\n'}
		}
	}
	n, err := f.Write(head)
	s.size += int64(n)
	if err != nil {
		f.Close()
		return err
	}
	s.f = f
	return nil
}

// section is a part of a retained file that is complete.
type section struct {
	f    *os.File
	size int64
}

// read opens what is retained now, oldest first, and registers the follower, if any, in the same instant: together they miss nothing
// and repeat nothing.
func (s *store) read(f *follower) ([]section, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []section
	for _, name := range []string{olderName, currentName} {
		path := filepath.Join(s.dir, name)
		if newer(path) {
			continue
		}
		file, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			var st os.FileInfo
			if st, err = file.Stat(); err == nil {
				out = append(out, section{file, st.Size()})
				continue
			}
			file.Close()
		}
		closeAll(out)
		return nil, err
	}
	if f != nil {
		if s.followers == nil {
			s.followers = map[*follower]struct{}{}
		}
		s.followers[f] = struct{}{}
	}
	return out, nil
}

// left returns the marker for lines left out at the end of what the follower got, if there are any.
func (s *store) left(f *follower, last Line) (Line, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.dropped == 0 || len(f.lines) > 0 {
		return Line{}, false
	}
	return f.marker(last), true
}

func (s *store) unfollow(f *follower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.followers, f)
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

func closeAll(sections []section) {
	for _, s := range sections {
		s.f.Close()
	}
}

// newer reports whether the file was written by a newer version, whose lines are not for us to read or to add to.
func newer(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head retained
	return json.NewDecoder(io.LimitReader(f, 256)).Decode(&head) == nil && head.Schema > Schema
}
