//go:build linux

package containerd

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAwake(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "latency")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var a awake
	wishes := func(want ...int32) {
		t.Helper()
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int32, len(raw)/4)
		for i := range got {
			got[i] = int32(binary.NativeEndian.Uint32(raw[4*i:]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
	}
	// Without the file it counts all the same.
	a.count(1)
	a.count(-1)
	if err := a.open(filepath.Join(t.TempDir(), "none")); err == nil {
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
	wishes(anyTime, atOnce)
	a.count(-1)
	wishes(anyTime, atOnce, anyTime)
	a.count(1)
	a.close()
	a.count(-1)
	wishes(anyTime, atOnce, anyTime, atOnce)
}
