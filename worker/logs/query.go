package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Query says which lines are wanted. Lines come in the order in which they were captured.
type Query struct {
	// Ref is the function. It may be left out where Instance names one that is captured now.
	Ref functions.Ref
	// Instance picks one instance's lines; empty: every instance's, those that are gone included.
	Instance functions.InstanceID
	// Revision picks one revision's lines; empty: every revision's.
	Revision functions.RevisionID
	// Since leaves out older lines; zero: none.
	Since time.Time
	// Tail is how many of the retained lines are wanted, the newest; 0: all; negative: none.
	Tail int
	// Follow goes on with lines as they come, until the context ends.
	Follow bool
	// Live, if set, is called between the last retained line and the first that follows.
	Live func()
}

// MaxTail bounds Query.Tail.
const MaxTail = 100_000

// followBuffer is how many lines a follower may be behind.
const followBuffer = 4096

func (q Query) match(l Line) bool {
	return (q.Instance == "" || l.Instance == q.Instance) && (q.Revision == "" || l.Revision == q.Revision) &&
		(q.Since.IsZero() || !l.Time.Before(q.Since))
}

// Query calls fn for every line asked for, one after the other; what was written before it was called is among them. It ends with fn's error; a context that ends, or Run's end, is none while
// following. A function without lines has none: whether it exists is not known here.
func (l *Logs) Query(ctx context.Context, q Query, fn func(Line) error) error {
	if q.Ref == (functions.Ref{}) {
		ref, ok := l.refOf(q.Instance)
		if !ok {
			return fault.New(fault.CodeNotFound, "no instance %q is running here", q.Instance).WithOp("logs").
				WithHint("name its function: its log is kept by function")
		}
		q.Ref = ref
	}
	if err := q.Ref.ValidateRunning(); err != nil {
		return err
	}
	if q.Tail > MaxTail {
		return fault.New(fault.CodeInvalidRequest, "%d lines are more than %d", q.Tail, MaxTail).WithOp("logs").WithField("tail").
			WithHint("bound the time instead, as in --since 1h")
	}
	st := l.acquire(q.Ref)
	defer l.release(st)
	l.syncAll(q)
	var f *follower
	if q.Follow {
		f = &follower{lines: make(chan Line, followBuffer), match: q.match}
		defer st.unfollow(f)
	}
	sections, err := st.read(f)
	if err != nil {
		return fmt.Errorf("logs of %s: %w", q.Ref, err)
	}
	defer closeAll(sections)
	if err := history(ctx, sections, q, fn); err != nil {
		if q.Follow && ctx.Err() != nil {
			return nil
		}
		return err
	}
	if f == nil {
		return nil
	}
	if q.Live != nil {
		q.Live()
	}
	return l.follow(ctx, st, f, fn)
}

func (l *Logs) follow(ctx context.Context, st *store, f *follower, fn func(Line) error) error {
	for ctx.Err() == nil {
		select {
		case line := <-f.lines:
			if err := fn(line); err != nil {
				return err
			}
			if len(f.lines) > 0 {
				continue
			}
			if m, ok := st.left(f, line); ok {
				if err := fn(m); err != nil {
					return err
				}
			}
		case <-ctx.Done():
		case <-l.ended:
			// What came before the end is still the reader's.
			for len(f.lines) > 0 {
				if err := fn(<-f.lines); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return nil
}

func history(ctx context.Context, sections []section, q Query, fn func(Line) error) error {
	switch {
	case q.Tail < 0:
		return nil
	case q.Tail > 0:
		lines, err := tail(ctx, sections, q)
		if err != nil {
			return err
		}
		for _, l := range slices.Backward(lines) {
			if err := fn(l); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range sections {
		next := lineScanner(bufio.NewReaderSize(io.NewSectionReader(s.f, 0, s.size), 64<<10))
		for {
			b, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if line, ok := decode(b); ok && q.match(line) {
				if err := fn(line); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tail returns the last lines that match, newest first. It reads backwards, so it costs what it returns.
func tail(ctx context.Context, sections []section, q Query) ([]Line, error) {
	var out []Line
	for _, s := range slices.Backward(sections) {
		var carry []byte // the beginning of the block read before: the end of the line that this block ends with
		block := make([]byte, 64<<10)
		for end := s.size; end > 0; {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := min(end, int64(len(block)))
			end -= n
			if _, err := s.f.ReadAt(block[:n], end); err != nil {
				return nil, err
			}
			rest := slices.Concat(block[:n], carry)
			for {
				i := bytes.LastIndexByte(rest, '\n')
				if i < 0 && end > 0 {
					break
				}
				line, ok := decode(rest[i+1:])
				// A clock that was set back may leave older lines behind newer ones, so Since ends nothing early.
				if ok && q.match(line) {
					if out = append(out, line); len(out) == q.Tail {
						return out, nil
					}
				}
				if i < 0 {
					rest = nil
					break
				}
				rest = rest[:i]
			}
			carry = slices.Clone(rest)
		}
	}
	return out, nil
}
