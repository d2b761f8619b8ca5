package sim

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// The bounds of a trace that is read.
const (
	maxApps  = 1_000_000
	maxCalls = 200_000_000
	// maxLength is what 32 bits of milliseconds hold, with room for the last run.
	maxLength = 48 * 24 * time.Hour
	minMemory = 1
	maxMemory = 1 << 20
)

// What the Azure format does not tell: the median memory of the published applications, in MiB, and how long a call runs, in milliseconds.
const (
	azureMemory = 170
	azureRun    = 1000
)

// Read reads traces, each continuing the one before, in either of two formats that their first line tells apart:
//
//	app,at_ms,run_ms,memory_mib                          one line a call: when it comes since the file's beginning, how long it runs, its application's memory
//	HashOwner,HashApp,HashFunction,Trigger,1,2,…,1440    the Azure Functions trace of 2019: one line a function, its calls in each minute of a day
//
// Of an application's memory its largest counts. A minute's calls are spread evenly over it, run for a second and take 170 MiB: the Azure
// file does not tell. An error names the file, the line and the column.
func Read(files []io.Reader, names []string) (*Trace, error) {
	b := builder{index: map[string]int{}}
	for i, f := range files {
		if err := b.file(f); err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
	}
	if b.calls == 0 {
		return nil, errors.New("the trace holds no calls")
	}
	for i := range b.apps {
		sortCalls(b.apps[i].Calls)
	}
	slices.SortFunc(b.apps, func(a, c App) int { return cmp.Compare(a.Name, c.Name) })
	return &Trace{Length: b.offset, Apps: b.apps}, nil
}

type builder struct {
	apps   []App
	index  map[string]int
	calls  int
	offset time.Duration
}

var ownHeader = []string{"app", "at_ms", "run_ms", "memory_mib"}

func (b *builder) file(f io.Reader) error {
	r := csv.NewReader(bufio.NewReaderSize(f, 1<<16))
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		return fmt.Errorf("no first line: %w", err)
	}
	read, length := b.row, time.Duration(0)
	switch {
	case slices.Equal(head, ownHeader):
	case len(head) > 4 && head[0] == "HashOwner" && head[1] == "HashApp" && head[2] == "HashFunction" && head[3] == "Trigger":
		length = time.Duration(len(head)-4) * time.Minute
		read = b.minutes
	default:
		return fmt.Errorf("line 1: the columns are neither %v nor HashOwner, HashApp, HashFunction, Trigger and minutes", ownHeader)
	}
	if b.offset+length > maxLength {
		return fmt.Errorf("the trace is longer than %s", maxLength)
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			var until time.Duration
			until, err = read(row)
			length = max(length, until)
			if err != nil {
				line, _ := r.FieldPos(0)
				err = fmt.Errorf("line %d: %w", line, err)
			}
		}
		if err != nil {
			return err
		}
	}
	// Files end at a full minute.
	b.offset += (length + time.Minute - 1).Truncate(time.Minute)
	return nil
}

// row reads a call and returns when it ends.
func (b *builder) row(row []string) (time.Duration, error) {
	most := (maxLength - b.offset).Milliseconds()
	at, err := whole(row[1], "at_ms", 0, most)
	if err != nil {
		return 0, err
	}
	run, err := whole(row[2], "run_ms", 0, int64(24*time.Hour/time.Millisecond))
	if err != nil {
		return 0, err
	}
	memory, err := whole(row[3], "memory_mib", minMemory, maxMemory)
	if err != nil {
		return 0, err
	}
	app, err := b.app(row[0], memory)
	if err != nil {
		return 0, err
	}
	return time.Duration(at+1) * time.Millisecond, b.add(app, at, run)
}

// minutes reads a function's day.
func (b *builder) minutes(row []string) (time.Duration, error) {
	app, err := b.app(row[0]+"/"+row[1], azureMemory)
	if err != nil {
		return 0, err
	}
	for m, text := range row[4:] {
		n, err := whole(text, fmt.Sprintf("minute %d", m+1), 0, maxCalls)
		if err != nil {
			return 0, err
		}
		if int64(b.calls)+n > maxCalls {
			return 0, fmt.Errorf("the trace holds more than %d calls", maxCalls)
		}
		for k := range n {
			if err := b.add(app, int64(m)*minute+(2*k+1)*minute/(2*n), azureRun); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

func (b *builder) app(name string, memory int64) (int, error) {
	if name == "" || len(name) > 256 {
		return 0, errors.New("app: the name has 1 to 256 bytes")
	}
	i, known := b.index[name]
	if !known {
		if i = len(b.apps); i >= maxApps {
			return 0, fmt.Errorf("app: there are more than %d", maxApps)
		}
		// The reader uses its memory again.
		own := string(append([]byte(nil), name...))
		b.index[own] = i
		b.apps = append(b.apps, App{Name: own})
	}
	b.apps[i].Memory = max(b.apps[i].Memory, memory*functions.MiB)
	return i, nil
}

func (b *builder) add(app int, at, run int64) error {
	if b.calls++; b.calls > maxCalls {
		return fmt.Errorf("the trace holds more than %d calls", maxCalls)
	}
	at += b.offset.Milliseconds()
	b.apps[app].Calls = append(b.apps[app].Calls, Call{At: uint32(at), Run: uint32(min(run, math.MaxUint32-at))})
	return nil
}

func whole(text, column string, low, high int64) (int64, error) {
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < low || v > high {
		return 0, fmt.Errorf("%s: %.40q is no whole number between %d and %d", column, text, low, high)
	}
	return v, nil
}

// Write writes a trace in the format of one line a call.
func Write(w io.Writer, t *Trace) error {
	out := csv.NewWriter(w)
	if err := out.Write(ownHeader); err != nil {
		return err
	}
	for i := range t.Apps {
		a := &t.Apps[i]
		for _, c := range a.Calls {
			row := []string{a.Name, strconv.FormatUint(uint64(c.At), 10), strconv.FormatUint(uint64(c.Run), 10), strconv.FormatInt(max(a.Memory/functions.MiB, 1), 10)}
			if err := out.Write(row); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}
