package logs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/leaks"
	"github.com/tatami-faas/tatami/worker/logs"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

var cart = functions.Ref{Namespace: "shop", Name: "cart"}

const patience = time.Minute

// desk is a Logs that runs, with raw files to write to.
type desk struct {
	t   *testing.T
	cfg logs.Config
	raw string
	*logs.Logs
	stop func()
}

func newDesk(t *testing.T, cfg logs.Config) *desk {
	t.Helper()
	d := closedDesk(t, cfg)
	d.start()
	return d
}

// closedDesk is a desk whose directories can still be filled by the test: start sweeps them once, beside whatever else happens.
func closedDesk(t *testing.T, cfg logs.Config) *desk {
	t.Helper()
	cfg.Dir, cfg.PosDir = filepath.Join(t.TempDir(), "logs"), filepath.Join(t.TempDir(), "pos")
	return &desk{t: t, cfg: cfg, raw: t.TempDir()}
}

func (d *desk) start() {
	d.t.Helper()
	l, err := logs.New(d.cfg, slog.New(slog.NewTextHandler(d.t.Output(), nil)))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	d.Logs = l
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	})
	d.t.Cleanup(d.stop)
}

func (d *desk) paths(id functions.InstanceID) (string, string) {
	return filepath.Join(d.raw, string(id)+".out"), filepath.Join(d.raw, string(id)+".err")
}

func (d *desk) attach(id functions.InstanceID, ref functions.Ref) {
	d.t.Helper()
	out, errs := d.paths(id)
	if err := d.Attach(logs.Source{Instance: id, Ref: ref, Revision: "rev_1", Stdout: out, Stderr: errs}); err != nil {
		d.t.Fatal(err)
	}
}

// begin makes an instance's raw files and captures them.
func (d *desk) begin(ref functions.Ref) functions.InstanceID {
	d.t.Helper()
	id := functions.NewInstanceID()
	out, errs := d.paths(id)
	write(d.t, out, "", os.O_CREATE)
	write(d.t, errs, "", os.O_CREATE)
	d.attach(id, ref)
	return id
}

func write(t *testing.T, path, text string, flag int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|flag, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (d *desk) print(id functions.InstanceID, text string) {
	d.t.Helper()
	out, _ := d.paths(id)
	write(d.t, out, text, 0)
}

func (d *desk) query(q logs.Query) []logs.Line {
	d.t.Helper()
	var got []logs.Line
	if err := d.Query(d.t.Context(), q, func(l logs.Line) error { got = append(got, l); return nil }); err != nil {
		d.t.Fatal(err)
	}
	return got
}

func texts(lines []logs.Line) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return out
}

// await queries until the condition holds.
func (d *desk) await(q logs.Query, what string, ok func([]logs.Line) bool) []logs.Line {
	d.t.Helper()
	for over := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if got := d.query(q); ok(got) {
			return got
		} else if time.Now().After(over) {
			d.t.Fatalf("%s: got %d lines, the last of them %q", what, len(got), texts(got[max(0, len(got)-3):]))
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{MaxLine: 20})
	id := d.begin(cart)
	out, errs := d.paths(id)
	before := time.Now()
	write(t, out, "one\ntwo\r\n\nhalf", 0)
	d.await(logs.Query{Ref: cart}, "three lines", func(l []logs.Line) bool { return len(l) == 3 })
	write(t, out, " and half\n"+strings.Repeat("x", 50)+"\nbad \xff byte\n", 0)
	d.Sync(id)
	write(t, errs, "oops", 0)
	if last := d.Last(id, 2); !slices.Equal(last, []string{strings.Repeat("x", 20), "bad \uFFFD byte"}) {
		t.Errorf("last lines %q", last)
	}
	if last := d.Finish(id, "exited with code 1", 2); !slices.Equal(last, []string{"bad \uFFFD byte", "oops"}) {
		t.Errorf("last lines at the end %q", last)
	}
	got := d.query(logs.Query{Ref: cart})
	want := []string{"one", "two", "", "half and half", strings.Repeat("x", 20), "bad \uFFFD byte", "oops", "exited with code 1"}
	if !slices.Equal(texts(got), want) {
		t.Fatalf("got %q, want %q", texts(got), want)
	}
	streams := []logs.Stream{logs.Stdout, logs.Stdout, logs.Stdout, logs.Stdout, logs.Stdout, logs.Stdout, logs.Stderr, logs.Platform}
	for i, l := range got {
		if l.Stream != streams[i] || l.Cut != (i == 4) || l.Instance != id || l.Revision != "rev_1" || l.Time.Before(before) {
			t.Errorf("line %d: %+v", i, l)
		}
	}
	if entries, err := os.ReadDir(d.cfg.PosDir); err != nil || len(entries) != 0 {
		t.Errorf("positions left: %v, %v", entries, err)
	}
}

// Whoever asks finds what was written before, however far behind the reading is.
func TestWhatWasWrittenIsFound(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	for i := range 200 {
		d.print(id, fmt.Sprintln("line", i))
		if got := texts(d.query(logs.Query{Ref: cart, Tail: 1})); len(got) != 1 || got[0] != fmt.Sprint("line ", i) {
			t.Fatalf("after line %d was written the last one is %q", i, got)
		}
	}
}

func TestQueryPicks(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	a, b := d.begin(cart), d.begin(cart)
	other := d.begin(functions.Ref{Namespace: "default", Name: "cart"})
	d.print(a, "a1\na2\n")
	d.Sync(a)
	time.Sleep(2 * time.Millisecond)
	middle := time.Now()
	d.print(b, "b1\nb2\n")
	d.Sync(b)
	d.print(other, "other\n")
	d.Sync(other)
	for _, c := range []struct {
		q    logs.Query
		want []string
	}{
		{logs.Query{Ref: cart}, []string{"a1", "a2", "b1", "b2"}},
		{logs.Query{Ref: cart, Tail: 3}, []string{"a2", "b1", "b2"}},
		{logs.Query{Ref: cart, Tail: 3, Instance: a}, []string{"a1", "a2"}},
		{logs.Query{Ref: cart, Tail: -1}, nil},
		{logs.Query{Ref: cart, Since: middle}, []string{"b1", "b2"}},
		{logs.Query{Ref: cart, Since: middle, Tail: 9}, []string{"b1", "b2"}},
		{logs.Query{Instance: b}, []string{"b1", "b2"}},
		{logs.Query{Ref: cart, Revision: "rev_2"}, nil},
		{logs.Query{Ref: functions.Ref{Namespace: "shop", Name: "unknown"}}, nil},
	} {
		if got := texts(d.query(c.q)); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.q, got, c.want)
		}
	}
	none := func(logs.Line) error { return nil }
	for name, q := range map[string]logs.Query{
		"no function": {Instance: functions.NewInstanceID()},
		"outside":     {Ref: functions.Ref{Namespace: "..", Name: ".."}},
		"a long tail": {Ref: cart, Tail: logs.MaxTail + 1},
	} {
		if err := d.Query(t.Context(), q, none); fault.From(err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	enough := errors.New("enough")
	if err := d.Query(t.Context(), logs.Query{Ref: cart}, func(logs.Line) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the reader's error: %v", err)
	}
}

// While an instance writes, a reader that begins at any moment sees every line once.
func TestFollowMissesNothingAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{MaxFile: 64 << 20})
	id := d.begin(cart)
	// No more than a follower may be behind: one that the machine holds up misses nothing either.
	const lines = 4_000
	var wg sync.WaitGroup
	wg.Go(func() {
		out, _ := d.paths(id)
		f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := range lines {
			if i%100 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
			fmt.Fprintf(f, "line %d\n", i)
		}
	})
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			next := 0
			err := d.Query(ctx, logs.Query{Ref: cart, Follow: true}, func(l logs.Line) error {
				if want := fmt.Sprintf("line %d", next); l.Text != want {
					return fmt.Errorf("got %q, want %q", l.Text, want)
				}
				if next++; next == lines {
					cancel()
				}
				return nil
			})
			if err != nil || next != lines {
				t.Errorf("%d lines, error %v", next, err)
			}
		})
	}
	wg.Wait()
}

// A kill in the middle: the next run goes on where this one was, half a line included.
func TestARestartGoesOn(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	d.print(id, strings.Repeat("early\n", 30_000)+"half")
	d.await(logs.Query{Ref: cart, Tail: 40_000}, "early lines", func(l []logs.Line) bool { return len(l) == 30_000 })
	// The first one is not told to stop before the second reads: as after kill -9, only the files speak. It must not write either.
	old, oldStop := d.Logs, d.stop
	pos, err := os.ReadFile(filepath.Join(d.cfg.PosDir, string(id)+".pos"))
	if err != nil {
		t.Fatal(err)
	}
	oldStop()
	old.Leave(id)
	if err := os.WriteFile(filepath.Join(d.cfg.PosDir, string(id)+".pos"), pos, 0o600); err != nil {
		t.Fatal(err)
	}
	d.print(id, " and half\nbetween\n")
	d.start()
	d.attach(id, cart)
	d.attach(id, cart)
	d.print(id, "late\n")
	d.Sync(id)
	if got := texts(d.query(logs.Query{Ref: cart, Tail: 4})); !slices.Equal(got, []string{"early", "half and half", "between", "late"}) {
		t.Errorf("got %q", got)
	}
	if n := len(d.query(logs.Query{Ref: cart})); n != 30_003 {
		t.Errorf("%d lines, want 30003", n)
	}
	d.Prune([]functions.InstanceID{id})
	if _, err := os.Stat(filepath.Join(d.cfg.PosDir, string(id)+".pos")); err != nil {
		t.Error(err)
	}
	d.Prune(nil)
	if _, err := os.Stat(filepath.Join(d.cfg.PosDir, string(id)+".pos")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a position nobody needs: %v", err)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// An endless writer fills neither the run directory nor the retained files, and a quiet neighbour is heard at once.
func TestAFlood(t *testing.T) {
	t.Parallel()
	const behind, maxFile = 1 << 20, 512 << 10
	d := newDesk(t, logs.Config{Rate: 256 << 10, Burst: 512 << 10, MaxBehind: behind, MaxFile: maxFile})
	quietRef := functions.Ref{Namespace: "shop", Name: "quiet"}
	loud, quiet := d.begin(cart), d.begin(quietRef)
	out, _ := d.paths(loud)
	stop, enough := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	const flood = 4 << 20
	wg.Go(func() {
		f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		written, told := int64(0), false
		chunk := bytes.Repeat([]byte("all work and no play\n"), 1000)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, err := f.Write(chunk)
			if err != nil {
				t.Error(err)
				return
			}
			if written += int64(n); written%(1<<20) < int64(len(chunk)) {
				time.Sleep(time.Millisecond)
			}
			if written >= flood && !told {
				told = true
				close(enough)
			}
		}
	})
	for i := range 20 {
		d.print(quiet, fmt.Sprintf("hello %d\n", i))
		d.await(logs.Query{Ref: quietRef, Tail: 1}, "the quiet one", func(l []logs.Line) bool {
			return len(l) == 1 && l[0].Text == fmt.Sprintf("hello %d", i)
		})
	}
	d.await(logs.Query{Ref: cart}, "the marker", func(l []logs.Line) bool {
		return slices.ContainsFunc(l, func(l logs.Line) bool {
			return l.Stream == logs.Platform && strings.HasSuffix(l.Text, "of output dropped here: it came faster than 256 KiB/s")
		})
	})
	select {
	case <-enough:
	case <-time.After(patience):
		t.Errorf("less than %d bytes were written: no flood", flood)
	}
	close(stop)
	wg.Wait()
	d.await(logs.Query{Ref: quietRef, Tail: 1}, "the raw file given back", func([]logs.Line) bool { return blocks(t, out) <= behind+256<<10 })
	var kept int64
	for _, name := range []string{"log.jsonl", "log.1.jsonl"} {
		if st, err := os.Stat(filepath.Join(d.cfg.Dir, "shop", "cart", name)); err == nil {
			kept += st.Size()
			if st.Size() > maxFile {
				t.Errorf("%s has %d bytes", name, st.Size())
			}
		}
	}
	if kept == 0 {
		t.Error("nothing was kept")
	}
	for _, l := range d.query(logs.Query{Ref: cart}) {
		if l.Stream == logs.Stdout && l.Text != "all work and no play" {
			t.Fatalf("a torn line: %q", l.Text)
		}
	}
}

func TestRotationKeepsTheNewest(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{MaxFile: 256 << 10})
	id := d.begin(cart)
	for i := range 10_000 {
		d.print(id, fmt.Sprintf("line %d\n", i))
		if i%100 == 99 {
			d.Sync(id)
		}
	}
	all := texts(d.query(logs.Query{Ref: cart}))
	if len(all) < 2000 || len(all) > 9000 {
		t.Fatalf("%d lines are kept", len(all))
	}
	for i, text := range all {
		if want := fmt.Sprintf("line %d", 10_000-len(all)+i); text != want {
			t.Fatalf("line %d is %q, want %q", i, text, want)
		}
	}
	// Tails of every length agree with the whole, across the two files too.
	for _, n := range []int{1, 2, 100, 1000, len(all) - 1, len(all), len(all) + 1} {
		if got := texts(d.query(logs.Query{Ref: cart, Tail: n})); !slices.Equal(got, all[max(0, len(all)-n):]) {
			t.Errorf("tail %d: %d lines", n, len(got))
		}
	}
}

func TestWhatIsOnDiskMayBeTornOrNewer(t *testing.T) {
	t.Parallel()
	d := closedDesk(t, logs.Config{})
	dir := filepath.Join(d.cfg.Dir, "shop", "cart")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	current := filepath.Join(dir, "log.jsonl")
	write(t, current, `{"schema":1,"x":""}`+"\n"+`{"t":5,"i":"ins_x","s":"stdout","x":"whole"}`+"\n"+`{"t":6,"i":"ins`, os.O_CREATE)
	d.start()
	id := d.begin(cart)
	d.print(id, "new\n")
	d.Sync(id)
	for _, tail := range []int{0, 10} {
		if got := texts(d.query(logs.Query{Ref: cart, Tail: tail})); !slices.Equal(got, []string{"whole", "new"}) {
			t.Errorf("tail %d: %q", tail, got)
		}
	}
	d.Finish(id, "", 0)

	write(t, current, "", os.O_TRUNC)
	write(t, current, `{"schema":2,"format":"unknown"}`+"\n"+`{"t":5,"x":"not ours to read"}`+"\n", 0)
	id = d.begin(cart)
	d.print(id, "ours\n")
	d.Sync(id)
	if got := texts(d.query(logs.Query{Ref: cart})); !slices.Equal(got, []string{"ours"}) {
		t.Errorf("beside a newer file: %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "log.1.jsonl")); err != nil || !strings.Contains(string(b), "not ours to read") {
		t.Errorf("the newer file was changed: %q, %v", b, err)
	}
}

func TestASlowReaderIsTold(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hold, begun := make(chan struct{}), make(chan struct{})
	done := make(chan []string, 1)
	go func() {
		var got []string
		_ = d.Query(ctx, logs.Query{Ref: cart, Follow: true}, func(l logs.Line) error {
			if len(got) == 0 {
				close(begun)
				<-hold
			}
			if got = append(got, l.Text); strings.Contains(l.Text, "not shown here") {
				cancel()
			}
			return nil
		})
		done <- got
	}()
	d.print(id, "first\n")
	<-begun
	d.print(id, strings.Repeat("more\n", 10_000))
	d.Sync(id)
	close(hold)
	got := <-done
	if last := got[len(got)-1]; len(got) != 1+4096+1 || last != fmt.Sprintf("%d lines are not shown here: the reader is slower than the output", 10_000-4096) {
		t.Errorf("last of %d lines: %q", len(got), last)
	}
}

func TestFollowersEndWithTheRun(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	d.print(id, "up\n")
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- d.Query(t.Context(), logs.Query{Ref: cart, Follow: true}, func(logs.Line) error { close(begun); return nil })
	}()
	<-begun
	d.stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A file that somebody else truncates is read from its beginning again.
func TestTruncationFromOutside(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	out, _ := d.paths(id)
	d.print(id, "a long line before\nhalf a li")
	d.Sync(id)
	if err := os.Truncate(out, 0); err != nil {
		t.Fatal(err)
	}
	d.print(id, "after\n")
	d.Sync(id)
	if got := texts(d.query(logs.Query{Ref: cart})); !slices.Equal(got, []string{"a long line before", "after"}) {
		t.Errorf("got %q", got)
	}
}

func TestOldLogsGo(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{MaxAge: time.Hour})
	d.stop()
	for name, age := range map[string]time.Duration{"old": 2 * time.Hour, "young": 0} {
		dir := filepath.Join(d.cfg.Dir, "shop", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "log.jsonl"), "{}\n", os.O_CREATE)
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(dir, "log.jsonl"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	old := filepath.Join(d.cfg.Dir, "shop", "old")
	for over := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(old); errors.Is(err, os.ErrNotExist) {
			break
		} else if time.Now().After(over) {
			t.Fatal("old logs are still there")
		}
	}
	if _, err := os.Stat(filepath.Join(d.cfg.Dir, "shop", "young")); err != nil {
		t.Error(err)
	}
}

func TestMissingFilesAreAnError(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	err := d.Attach(logs.Source{Instance: functions.NewInstanceID(), Ref: cart, Stdout: "/nowhere/out", Stderr: "/nowhere/err"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// What is kept is a format that later versions must read.
func TestRetainedForm(t *testing.T) {
	t.Parallel()
	d := newDesk(t, logs.Config{})
	id := d.begin(cart)
	d.print(id, "a \"quoted\" <line>\n")
	d.Finish(id, "", 0)
	f, err := os.Open(filepath.Join(d.cfg.Dir, "shop", "cart", "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	for s := bufio.NewScanner(f); s.Scan(); {
		got = append(got, s.Text())
	}
	line := d.query(logs.Query{Ref: cart})[0]
	want := []string{
		`{"schema":1,"x":""}`,
		fmt.Sprintf(`{"t":%d,"i":"%s","r":"rev_1","s":"stdout","x":"a \"quoted\" <line>"}`, line.Time.UnixNano(), id),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
