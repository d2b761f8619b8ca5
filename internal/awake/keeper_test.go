package awake

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// file is where wishes go in a test.
type file struct {
	t    *testing.T
	path string
	said int
}

func newFile(t *testing.T) *file {
	t.Helper()
	f := &file{t: t, path: filepath.Join(t.TempDir(), "latency")}
	if err := os.WriteFile(f.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// wishes checks which wishes were told since the last time.
func (f *file) wishes(want ...int32) {
	f.t.Helper()
	if got := f.told(); !slices.Equal(got, want) {
		f.t.Errorf("%v, not %v", got, want)
	}
}

// told returns which wishes were told since the last time.
func (f *file) told() (got []int32) {
	f.t.Helper()
	synctest.Wait()
	raw, err := os.ReadFile(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	for ; f.said < len(raw); f.said += 4 {
		got = append(got, int32(binary.NativeEndian.Uint32(raw[f.said:])))
	}
	return got
}

// opened makes a keeper of the policy that has the file.
func (f *file) opened(p Policy) *Keeper {
	f.t.Helper()
	k := New(p)
	if err := k.Open(f.path); err != nil {
		f.t.Fatal(err)
	}
	f.wishes(anyTime)
	return k
}

func TestStarts(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		k := New(Starts)
		// Without the file it counts all the same.
		k.Count(1)
		k.Count(-1)
		k.Expect()
		if err := k.Open(filepath.Join(filepath.Dir(f.path), "none")); err == nil {
			t.Error("a file that is not there was opened")
		}
		if err := k.Open(f.path); err != nil {
			t.Fatal(err)
		}
		f.wishes(anyTime)
		// Starts that overlap are one wish.
		k.Count(1)
		k.Count(1)
		k.Count(-1)
		f.wishes(atOnce)
		k.Count(-1)
		f.wishes(anyTime)
		// They go on: the processors are left alone until some time has passed.
		k.Count(1)
		time.Sleep(mostStart)
		f.wishes(atOnce, anyTime)
		k.Count(-1)
		k.Count(1)
		k.Count(-1)
		f.wishes()
		time.Sleep(startShare * leastStart)
		k.Count(1)
		f.wishes(atOnce)
		time.Sleep(2 * leastStart)
		f.wishes(anyTime)
		k.Count(-1)
		time.Sleep(startShare * mostStart)
		k.Count(1)
		k.Close()
		k.Count(-1)
		f.wishes(atOnce, anyTime)
	})
}

// A start that is expected is a start until it is one, or does not come.
func TestExpectedStarts(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		k := f.opened(Starts)
		k.Touch()
		f.wishes()
		k.Expect()
		f.wishes(atOnce)
		k.Count(1)
		time.Sleep(4 * lookAfter)
		f.wishes()
		k.Count(-1)
		f.wishes(anyTime)
		k.Expect()
		f.wishes(atOnce)
		time.Sleep(2 * lookAfter)
		f.wishes(anyTime)
		// However often, they have a share of the time.
		for range 4 * mostStart / lookAfter {
			k.Expect()
			time.Sleep(lookAfter / 2)
		}
		f.wishes(atOnce, anyTime)
		k.Close()
		k.Expect()
		f.wishes()
	})
}

func TestCalls(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		k := f.opened(Calls)
		k.Touch()
		f.wishes(atOnce)
		k.Touch()
		k.Touch()
		time.Sleep(lookAfter)
		f.wishes()
		// Nothing more came: a call that is under way keeps nobody awake.
		time.Sleep(lookAfter)
		f.wishes(anyTime)
		time.Sleep(time.Minute)
		f.wishes()
		k.Touch()
		f.wishes(atOnce)
		time.Sleep(2 * lookAfter)
		f.wishes(anyTime)
		// Calls that go on are one wish, for as long as they do.
		for range 2 * time.Second / lookAfter {
			k.Touch()
			time.Sleep(lookAfter / 2)
		}
		f.wishes(atOnce)
		time.Sleep(2 * lookSteady)
		f.wishes(anyTime)
		// They have no share of the time: the next one is as good.
		k.Touch()
		f.wishes(atOnce)
		// Starts and calls are one wish.
		k.Count(1)
		time.Sleep(2 * lookSteady)
		f.wishes()
		k.Touch()
		k.Count(-1)
		f.wishes()
		k.Close()
		f.wishes(anyTime)
		k.Touch()
		time.Sleep(2 * lookSteady)
		k.Close()
		f.wishes()
	})
}

// Of many touches at once the first makes the wish, also in the moment in which it ends.
func TestManyTouches(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		k := f.opened(Calls)
		touchAll := func() {
			var all sync.WaitGroup
			for range 8 {
				all.Go(k.Touch)
			}
			all.Wait()
		}
		for range 200 {
			touchAll()
			f.wishes(atOnce)
			time.Sleep(2 * lookAfter)
			touchAll()
			time.Sleep(3 * lookAfter)
			if got := f.told(); !slices.Equal(got, []int32{anyTime}) && !slices.Equal(got, []int32{anyTime, atOnce, anyTime}) {
				t.Errorf("%v", got)
			}
		}
		k.Close()
	})
}

// Nothing is told where nothing is wished, or can be.
func TestNobodyIsKeptAwake(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		never := New(Never)
		if err := never.Open(f.path); err != nil {
			t.Fatal(err)
		}
		for _, k := range []*Keeper{nil, {}, never, New(Calls)} {
			k.Touch()
			k.Expect()
			k.Count(1)
			k.Count(-1)
			k.Close()
		}
		f.wishes()
		starts := f.opened(Starts)
		starts.Touch()
		f.wishes()
		starts.Close()
	})
}

// A touch while calls go through allocates nothing.
func TestTouchAllocatesNothing(t *testing.T) {
	f := newFile(t)
	k := New(Calls)
	if err := k.Open(f.path); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	k.Touch()
	if n := testing.AllocsPerRun(1000, k.Touch); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTouch(b *testing.B) {
	path := filepath.Join(b.TempDir(), "latency")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	k := New(Calls)
	if err := k.Open(path); err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	for b.Loop() {
		k.Touch()
	}
}
