package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/gateway/queue"
)

const (
	// writtenFile is the size of the file that is written over and over, writtenAtOnce how much with one call.
	writtenFile   = 512 << 20
	writtenAtOnce = 1 << 20
	// functionsFile is the size of the file that a function writes over and over: what a function writes lies in memory, in a room of this size.
	functionsFile = 64 << 20
	// syncsBeside is how often a file is synced beside the writer.
	syncsBeside = 1000
)

// writingFigures measures acceptance while a program writes to the same filesystem as fast as it can, beside acceptance alone and beside a file that is
// synced beside the same writer; and while a function writes so, whose files lie in memory.
func writingFigures(ctx context.Context, _ floodPlan) ([]figure, error) {
	fmt.Println("flood: acceptance beside a writer at full speed…")
	got := map[string][]float64{}
	add := func(name string, v float64) { got[name] = append(got[name], v) }
	writing := func(dir string, size int64, turn func() error) func() error {
		return func() error {
			stop, err := writeAtFullSpeed(dir, size)
			if err != nil {
				return err
			}
			defer stop()
			return turn()
		}
	}
	for round := range rounds {
		turns := []func() error{
			func() error { return acceptP99(ctx, "alone", add) },
			writing("/tmp", writtenFile, func() error { return acceptP99(ctx, "disk", add) }),
			writing("/tmp", writtenFile, func() error { return syncP99(ctx, add) }),
			writing("/dev/shm", functionsFile, func() error { return acceptP99(ctx, "memory", add) }),
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, t := range turns {
			if err := t(); err != nil {
				return nil, err
			}
		}
	}
	m := func(name string) float64 { return median(got[name]) }
	n := rounds * acceptPerRound
	return []figure{
		writingFigure("accept_writing_p99_ms_c64", m("disk"), "alone", m("alone"), n),
		writingFigure("accept_writing_p99_ms_c64", m("disk"), "fsync", m("sync"), n),
		writingFigure("accept_function_writing_p99_ms_c64", m("memory"), "alone", m("alone"), n),
	}, nil
}

func writingFigure(metric string, value float64, baseline string, baselineValue float64, n int) figure {
	return beside("queue", metric, "ms", value, baseline, baselineValue, n)
}

func acceptP99(ctx context.Context, name string, add func(string, float64)) error {
	run := newNothing()
	return withQueue(ctx, run, func(q *queue.Queue) error {
		r := handOver(run)
		_, lat, err := hammer(acceptCallers, acceptPerRound, func() error {
			_, err := q.Accept(ctx, r)
			return err
		})
		if err == nil {
			add(name, ms(lat[len(lat)*99/100]))
		}
		return err
	})
}

// syncP99 measures the disk alone beside the writer: a file that grows and is synced, as one block of the store does.
func syncP99(ctx context.Context, add func(string, float64)) error {
	dir, err := os.MkdirTemp("/tmp", "ttsync")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		return err
	}
	defer f.Close()
	// As much as the callers of one sync hand over together.
	body := make([]byte, acceptCallers*bodySize)
	lat := make([]time.Duration, 0, syncsBeside)
	for range syncsBeside {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := f.Write(body); err != nil {
			return err
		}
		at := time.Now()
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		lat = append(lat, time.Since(at))
	}
	slices.Sort(lat)
	add("sync", ms(lat[len(lat)*99/100]))
	return nil
}

// writeAtFullSpeed writes to a file of a size in a directory until stop is called.
func writeAtFullSpeed(dir string, size int64) (stop func(), err error) {
	f, err := os.CreateTemp(dir, "ttwriter")
	if err != nil {
		return nil, err
	}
	var done atomic.Bool
	var writing sync.WaitGroup
	writing.Go(func() {
		buf := make([]byte, writtenAtOnce)
		for at := int64(0); !done.Load(); at = (at + writtenAtOnce) % size {
			if _, err := f.WriteAt(buf, at); err != nil {
				fmt.Fprintf(os.Stderr, "bench: the writer ended: %v\n", err)
				return
			}
		}
	})
	return func() {
		done.Store(true)
		writing.Wait()
		f.Close()
		_ = os.Remove(f.Name())
	}, nil
}
