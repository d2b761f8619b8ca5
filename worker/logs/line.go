package logs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Schema is the schema number of the retained files.
const Schema = 1

// Stream says where a line comes from.
type Stream string

// The streams. Platform carries what the worker itself has to say about an instance, such as its end or dropped output.
const (
	Stdout   Stream = "stdout"
	Stderr   Stream = "stderr"
	Platform Stream = "tatami"
)

// Line is one line of an instance's output, or the platform's word about it.
type Line struct {
	Time     time.Time            `json:"time"`
	Instance functions.InstanceID `json:"instance"`
	Revision functions.RevisionID `json:"revision"`
	Stream   Stream               `json:"stream"`
	// Text is valid UTF-8 without the line's end.
	Text string `json:"text"`
	// Cut says that the line was longer than MaxLine and its rest was left out.
	Cut bool `json:"cut,omitempty"`
}

// retained is a Line, or a file's first line, as it is kept on disk.
type retained struct {
	Schema   int                  `json:"schema,omitempty"`
	Time     int64                `json:"t,omitempty"`
	Instance functions.InstanceID `json:"i,omitempty"`
	Revision functions.RevisionID `json:"r,omitempty"`
	Stream   Stream               `json:"s,omitempty"`
	Text     string               `json:"x"`
	Cut      bool                 `json:"c,omitempty"`
}

// encode appends the line's retained form to buf.
func encode(buf *bytes.Buffer, l Line) error {
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	return e.Encode(retained{Time: l.Time.UnixNano(), Instance: l.Instance, Revision: l.Revision, Stream: l.Stream, Text: l.Text, Cut: l.Cut})
}

// decode reads a retained line; false for a file's head and for what a crash tore.
func decode(b []byte) (Line, bool) {
	var r retained
	if err := json.Unmarshal(b, &r); err != nil || r.Time == 0 {
		return Line{}, false
	}
	return Line{Time: time.Unix(0, r.Time), Instance: r.Instance, Revision: r.Revision, Stream: r.Stream, Text: r.Text, Cut: r.Cut}, true
}

// splitter cuts a byte stream into lines of bounded length.
type splitter struct {
	part []byte
	// cut says that part reached the bound and what follows up to the line's end is left out.
	cut bool
	// skip says that the line's beginning was dropped, so its rest is no line.
	skip bool
}

// maxLines bounds the lines of one feed, so that a flood of empty ones takes its turn like everybody else's.
const maxLines = 1024

// feed takes bytes and calls emit for every line that ended. It returns how many bytes it took: all, unless maxLines came first.
func (s *splitter) feed(b []byte, limit int, emit func(text string, cut bool)) int {
	taken := 0
	for range maxLines {
		rest := b[taken:]
		if len(rest) == 0 {
			return taken
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			s.grow(rest, limit)
			return len(b)
		}
		taken += i + 1
		s.grow(rest[:i], limit)
		s.flush(emit)
	}
	return taken
}

func (s *splitter) grow(b []byte, limit int) {
	if s.skip {
		return
	}
	if room := limit - len(s.part); len(b) > room {
		b, s.cut = b[:room], true
	}
	s.part = append(s.part, b...)
}

// flush ends the line that is under way.
func (s *splitter) flush(emit func(text string, cut bool)) {
	if !s.skip {
		emit(strings.ToValidUTF8(string(bytes.TrimSuffix(s.part, []byte{'\r'})), "\uFFFD"), s.cut)
	}
	s.part, s.cut, s.skip = s.part[:0], false, false
	if cap(s.part) > 4096 {
		s.part = nil
	}
}

// drop forgets the line under way; its rest is left out too.
func (s *splitter) drop() { s.part, s.cut, s.skip = nil, false, true }

// lineScanner reads retained files.
func lineScanner(r *bufio.Reader) func() ([]byte, error) {
	var long []byte
	return func() ([]byte, error) {
		long = long[:0]
		for {
			b, err := r.ReadSlice('\n')
			if err == nil && len(long) == 0 {
				return b, nil
			}
			long = append(long, b...)
			if err == nil {
				return long, nil
			}
			if err != bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it bare
				return nil, err
			}
		}
	}
}
