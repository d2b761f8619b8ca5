package live

import (
	"crypto/rand"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// backlog is how many events a stream may be behind until it gets a snapshot instead.
	backlog = 32
	// linger is how long events go on after the last stream ended: a page that reconnects resumes.
	linger = time.Minute
)

var errClosed = fault.New(fault.CodeDraining, "the gateway is stopping").WithHint("try again in a moment")

// feed holds the latest picture and the last events. All streams read from it, so that none needs a buffer of its own.
type feed struct {
	mu      sync.Mutex
	boot    string
	seq     uint64
	picture *picture
	// events[seq % backlog] leads to picture seq; nil where only a snapshot does.
	events  [backlog][]byte
	changed chan struct{}
	done    bool
	streams int
	left    time.Time
}

func (f *feed) init() {
	f.boot = strings.ToLower(rand.Text()[:8])
	f.changed = make(chan struct{})
}

func (f *feed) publish(p *picture, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	p.ID = f.id(f.seq)
	f.picture, f.events[f.seq%backlog] = p, data
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) id(seq uint64) string { return f.boot + "." + strconv.FormatUint(seq, 10) }

// resume reads the id of the last event that a client has seen: 0 when it is none of this run's.
func (f *feed) resume(id string) uint64 {
	boot, seq, _ := strings.Cut(id, ".")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || boot != f.boot {
		return 0
	}
	return n
}

// message is one event of a stream.
type message struct {
	id, event string
	data      []byte
}

// after returns what leads from seq to the latest picture, the latest's number, and a channel that is closed at the next one.
func (f *feed) after(seq uint64) ([]message, uint64, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return nil, 0, nil, errClosed
	}
	if f.picture == nil || seq == f.seq {
		return nil, seq, f.changed, nil
	}
	var out []message
	if seq > 0 && seq < f.seq && f.seq-seq < backlog {
		for n := seq + 1; n <= f.seq; n++ {
			data := f.events[n%backlog]
			if data == nil {
				out = nil
				break
			}
			out = append(out, message{f.id(n), "delta", data})
		}
	}
	if out == nil {
		data, err := f.picture.json()
		if err != nil {
			return nil, 0, nil, err
		}
		out = []message{{f.id(f.seq), "snapshot", data}}
	}
	return out, f.seq, f.changed, nil
}

func (f *feed) latest() (p *picture, changed <-chan struct{}, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.picture, f.changed, f.done
}

// enter counts a stream in unless there are too many.
func (f *feed) enter(limit int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.done:
		return errClosed
	case f.streams >= limit:
		return fault.New(fault.CodeUnavailable, "%d streams of the dashboard are open already", f.streams).
			WithHint("close some of the pages").WithRetryAfter(10 * time.Second)
	}
	f.streams++
	return nil
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams--
	f.left = time.Now()
}

// watched reports whether somebody looks or looked just now.
func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams > 0 || !f.left.IsZero() && time.Since(f.left) < linger
}

func (f *feed) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	close(f.changed)
	f.changed = make(chan struct{})
}

// json is the picture's Snapshot, written once for all who ask. The picture must have been published.
func (p *picture) json() ([]byte, error) {
	p.once.Do(func() { p.encoded, p.err = json.Marshal(&p.Snapshot) })
	return p.encoded, p.err
}
