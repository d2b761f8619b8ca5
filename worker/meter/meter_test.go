package meter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/worker/meter"
)

const meminfo = "MemTotal:        4096 kB\nMemFree:         1024 kB\nMemAvailable:    3072 kB\n"

func write(t *testing.T, dir, stat, mem string) {
	t.Helper()
	for name, text := range map[string]string{"stat": stat, "meminfo": mem} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadIsTheDifferenceOfTwoReadings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := meter.NewMachine(dir)
	write(t, dir, "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0 0 0\nintr 5\n", meminfo)
	cpu, memory, err := m.Capacity()
	if err != nil || cpu != 2000 || memory != 4<<20 {
		t.Fatalf("capacity %dm, %d bytes, error %v", cpu, memory, err)
	}
	first, err := m.Load()
	if err != nil || first.CPU != 0 || first.Memory != 1<<20 {
		t.Fatalf("first load %+v, error %v", first, err)
	}
	// Of 100 further ticks 30 were busy, 10 of them stolen; waiting for a disk is idle.
	write(t, dir, "cpu  110 0 110 860 10 0 0 10 7 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\n", meminfo)
	second, err := m.Load()
	if err != nil || second.CPU != 600 {
		t.Fatalf("second load %+v, error %v; want 600m", second, err)
	}
	again, err := m.Load()
	if err != nil || again.CPU != 0 {
		t.Fatalf("load without time between %+v, error %v", again, err)
	}
}

func TestUnreadableAccountsAreErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]string{
		"no processor": {"intr 5\n", meminfo},
		"no number":    {"cpu  1 2 x 4\ncpu0 1\n", meminfo},
		"no memory":    {"cpu  1 0 0 9 0 0 0 0\ncpu0 1\n", "MemFree: 5 kB\n"},
	} {
		dir := t.TempDir()
		write(t, dir, c[0], c[1])
		if _, err := meter.NewMachine(dir).Load(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, _, err := meter.NewMachine(filepath.Join(t.TempDir(), "missing")).Capacity(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func TestThisMachine(t *testing.T) {
	t.Parallel()
	cpu, memory, err := meter.NewMachine("").Capacity()
	if err != nil || cpu < 1000 || memory < 64*functions.MiB {
		t.Fatalf("capacity %dm, %d bytes, error %v", cpu, memory, err)
	}
}

type fixed struct {
	u    functions.Usage
	hang bool
}

func (f fixed) Stats(ctx context.Context) (functions.Usage, error) {
	if f.hang {
		<-ctx.Done()
		return functions.Usage{}, ctx.Err()
	}
	return f.u, nil
}

func TestOneThatHangsHidesNoOther(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	all := map[string]meter.Sandbox{"stuck": fixed{hang: true}}
	for _, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		all[k] = fixed{u: functions.Usage{Memory: 7}}
	}
	var mu sync.Mutex
	got := map[string]int64{}
	meter.Each(ctx, all, func(k string, u functions.Usage) {
		mu.Lock()
		defer mu.Unlock()
		got[k] = u.Memory
	})
	if len(got) != 8 || got["stuck"] != 0 {
		t.Fatalf("got %v", got)
	}
}
