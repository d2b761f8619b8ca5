package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ledger is what workers note: how many instances they have, and of each function's start what was last seen of it.
type ledger struct {
	live  *atomic.Int64
	marks []mark
	// shared is the memory of a file, where the workers have a process of their own.
	shared []byte
}

// mark is when a start's demand reached the scheduler, its command the worker, and when the sandbox's time was over: in ns since 1970.
type mark struct{ asked, commanded, ready atomic.Int64 }

func timeIn(at *atomic.Int64) time.Time { return time.Unix(0, at.Load()) }

func newLedger(functions int) *ledger {
	return &ledger{live: &atomic.Int64{}, marks: make([]mark, functions)}
}

// shareLedger opens the ledger that a file holds; it makes the file where that is missing.
func shareLedger(path string, functions int) (*ledger, error) {
	const head = unsafe.Sizeof(atomic.Int64{})
	size := int(head) + functions*int(unsafe.Sizeof(mark{}))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	shared, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	begin := unsafe.Pointer(unsafe.SliceData(shared))
	return &ledger{live: (*atomic.Int64)(begin), marks: unsafe.Slice((*mark)(unsafe.Add(begin, head)), functions), shared: shared}, nil
}

func (l *ledger) close() error {
	if l.shared == nil {
		return nil
	}
	return unix.Munmap(l.shared)
}
