//go:build linux

package containerd

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwake(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latency")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var a awake
		said := 0
		wishes := func(want ...int32) {
			t.Helper()
			synctest.Wait()
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got []int32
			for ; said < len(raw); said += 4 {
				got = append(got, int32(binary.NativeEndian.Uint32(raw[said:])))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v, not %v", got, want)
			}
		}
		// Without the file it counts all the same.
		a.count(1)
		a.count(-1)
		if err := a.open(filepath.Join(filepath.Dir(path), "none")); err == nil {
			t.Error("a file that is not there was opened")
		}
		if err := a.open(path); err != nil {
			t.Fatal(err)
		}
		wishes(anyTime)
		// Starts that overlap are one wish.
		a.count(1)
		a.count(1)
		a.count(-1)
		wishes(atOnce)
		a.count(-1)
		wishes(anyTime)
		// They go on: the processors are left alone until some time has passed.
		a.count(1)
		time.Sleep(mostAwake)
		wishes(atOnce, anyTime)
		a.count(-1)
		a.count(1)
		a.count(-1)
		wishes()
		time.Sleep(awakeShare * leastAwake)
		a.count(1)
		wishes(atOnce)
		time.Sleep(2 * leastAwake)
		wishes(anyTime)
		a.count(-1)
		time.Sleep(awakeShare * mostAwake)
		a.count(1)
		a.close()
		a.count(-1)
		wishes(atOnce, anyTime)
	})
}
