package meter

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Machine reads a machine's account of itself from its proc filesystem.
type Machine struct {
	proc string

	mu   sync.Mutex
	last ticks
}

// Load is what the whole machine uses.
type Load struct {
	// CPU is in millicores, over the time since the last reading; 0 for the first one.
	CPU int64
	// Memory is in bytes: what could not be had without swapping.
	Memory int64
}

// ticks is processor time in clock ticks, summed over the processors; busy and all move at the same pace whatever a tick is.
type ticks struct{ busy, all, cores int64 }

// NewMachine reads below proc; empty: /proc.
func NewMachine(proc string) *Machine {
	if proc == "" {
		proc = "/proc"
	}
	return &Machine{proc: proc}
}

// Capacity returns the number of processors in millicores and the size of the memory in bytes.
func (m *Machine) Capacity() (cpu, memory int64, err error) {
	t, err := m.ticks()
	if err != nil {
		return 0, 0, err
	}
	total, _, err := m.memory()
	return t.cores * 1000, total, err
}

// Load reads what is used now.
func (m *Machine) Load() (Load, error) {
	t, err := m.ticks()
	if err != nil {
		return Load{}, err
	}
	total, available, err := m.memory()
	if err != nil {
		return Load{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := Load{Memory: total - available}
	// Idle time may be seen to run backwards by a tick; a reading too soon after another says nothing.
	if all := t.all - m.last.all; m.last.all > 0 && all > 0 {
		l.CPU = max(0, t.busy-m.last.busy) * t.cores * 1000 / all
	}
	m.last = t
	return l, nil
}

func (m *Machine) ticks() (ticks, error) {
	b, err := os.ReadFile(filepath.Join(m.proc, "stat"))
	if err != nil {
		return ticks{}, fmt.Errorf("reading processor time: %w", err)
	}
	var t ticks
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			t.cores++
			continue
		}
		// user nice system idle iowait irq softirq steal; guest time is part of user already.
		for i, v := range f[1:min(len(f), 9)] {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return ticks{}, fmt.Errorf("reading processor time: %w", err)
			}
			t.all += n
			if i != 3 && i != 4 {
				t.busy += n
			}
		}
	}
	if t.cores == 0 || t.all == 0 {
		return ticks{}, errors.New("reading processor time: no processor in the stat file")
	}
	return t, nil
}

func (m *Machine) memory() (total, available int64, err error) {
	b, err := os.ReadFile(filepath.Join(m.proc, "meminfo"))
	if err != nil {
		return 0, 0, fmt.Errorf("reading memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	if total == 0 {
		return 0, 0, errors.New("reading memory: no MemTotal in the meminfo file")
	}
	return total, available, nil
}
