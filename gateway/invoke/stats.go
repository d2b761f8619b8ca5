package invoke

import (
	"cmp"
	"errors"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// FunctionStats are a function's figures at this gateway, queued attempts included.
type FunctionStats struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	// Requests counts what was begun and has ended, Errors those of them that ended in a 5xx, whoever gave it.
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"`
	// ColdStarts counts requests that waited for an instance to start.
	ColdStarts uint64 `json:"coldStarts"`
	InFlight   int    `json:"inFlight"`
	Waiting    int    `json:"waiting"`
	// RPS, P50 and P99 are of the last 60 s. Event streams and upgraded connections are not in the percentiles.
	RPS float64            `json:"rps"`
	P50 functions.Duration `json:"p50"`
	P99 functions.Duration `json:"p99"`
	// Codes counts by the function's status, or by the fault's code where the platform answered.
	Codes map[string]uint64 `json:"codes,omitempty"`
	// Durations are those that P50 and P99 are of; only Detailed has them.
	Durations Durations `json:"durations,omitempty"`
}

// codeClientGone counts requests whose client left.
const codeClientGone = "client-gone"

// Durations are counted in buckets of 1/16 of a power of two microseconds, in slices of ten seconds.
const (
	sliceLen  = 10 * time.Second
	slices60  = int64(time.Minute / sliceLen)
	subBits   = 4
	subBucket = 1 << subBits
	buckets   = (32 - subBits + 1) * subBucket
)

// fewCalls is up to how many durations a slice holds one by one: most functions are called seldom, and there are many of them.
const fewCalls = 16

type slice struct {
	// epoch numbers the ten seconds that the slice is about.
	epoch int64
	count uint64
	// few[:listed] are the buckets of the durations, as long as they have room; then counted has them all.
	few     [fewCalls]uint16
	listed  int
	counted *[buckets]uint32
}

// measure takes in a duration.
func (sl *slice) measure(d time.Duration) {
	b := bucketOf(d)
	if sl.counted == nil && sl.listed < fewCalls {
		sl.few[sl.listed] = uint16(b)
		sl.listed++
		return
	}
	if sl.counted == nil {
		sl.counted = new([buckets]uint32)
		for _, b := range sl.few {
			sl.counted[b]++
		}
		sl.listed = 0
	}
	sl.counted[b]++
}

// addTo adds the durations to the sum and returns how many there are.
func (sl *slice) addTo(sum *[buckets]uint64) (measured uint64) {
	for _, b := range sl.few[:sl.listed] {
		sum[b]++
	}
	measured = uint64(sl.listed)
	if sl.counted != nil {
		for b, n := range sl.counted {
			sum[b] += uint64(n)
			measured += uint64(n)
		}
	}
	return measured
}

// stats are a function's counters. The lock is the function's own and is held for some tens of nanoseconds.
type stats struct {
	mu       sync.Mutex
	requests uint64
	errors   uint64
	cold     uint64
	// usual is the first status that was answered, and usually how often; statuses has the others. Most functions answer with one.
	usual    int
	usually  uint64
	statuses map[int]uint64
	faults   map[fault.Code]uint64
	gone     uint64
	first    time.Time
	// slices are made at their first use: most functions are idle.
	slices [slices60 + 1]*slice
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	us = min(us, 1<<32-1)
	if us < subBucket {
		return int(us)
	}
	e := bits.Len64(us) - subBits - 1
	return (e+1)<<subBits + int(us>>e&(subBucket-1))
}

// middleOf is the duration in the middle of a bucket.
func middleOf(b int) time.Duration {
	if b < subBucket {
		return time.Duration(b) * time.Microsecond
	}
	e := b>>subBits - 1
	low := uint64(subBucket+b&(subBucket-1)) << e
	return time.Duration(low+uint64(1)<<e/2) * time.Microsecond
}

// outcome is how an exchange ended.
type outcome struct {
	// status is the function's; err is set instead where the platform answered.
	status int
	err    error
	cold   bool
	// stream keeps the duration out of the percentiles.
	stream bool
}

func (s *stats) record(now time.Time, took time.Duration, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if o.cold {
		s.cold++
	}
	if s.first.IsZero() {
		s.first = now
	}
	status := o.status
	switch {
	case errors.Is(o.err, errGone):
		s.gone++
	case o.err != nil:
		code := fault.CodeOf(o.err)
		status = code.Status()
		if s.faults == nil {
			s.faults = map[fault.Code]uint64{}
		}
		s.faults[code]++
	case s.usually == 0 || status == s.usual:
		s.usual = status
		s.usually++
	default:
		if s.statuses == nil {
			s.statuses = map[int]uint64{}
		}
		s.statuses[status]++
	}
	if status >= http.StatusInternalServerError {
		s.errors++
	}
	epoch := now.Unix() / int64(sliceLen/time.Second)
	at := epoch % int64(len(s.slices))
	sl := s.slices[at]
	if sl == nil {
		sl = &slice{epoch: epoch}
		s.slices[at] = sl
	} else if sl.epoch != epoch {
		*sl = slice{epoch: epoch}
	}
	sl.count++
	if !o.stream {
		sl.measure(took)
	}
}

// read fills in the figures, the durations where they are wanted; slices that have passed are given back.
func (s *stats) read(now time.Time, durations bool, out *FunctionStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Requests, out.Errors, out.ColdStarts = s.requests, s.errors, s.cold
	out.Codes = make(map[string]uint64, len(s.statuses)+len(s.faults)+2)
	if s.usually > 0 {
		out.Codes[strconv.Itoa(s.usual)] = s.usually
	}
	for k, v := range s.statuses {
		out.Codes[strconv.Itoa(k)] = v
	}
	for k, v := range s.faults {
		out.Codes[string(k)] += v
	}
	if s.gone > 0 {
		out.Codes[codeClientGone] = s.gone
	}
	epoch := now.Unix() / int64(sliceLen/time.Second)
	var sum [buckets]uint64
	var count, measured uint64
	for i, sl := range s.slices {
		if sl == nil {
			continue
		}
		if epoch-sl.epoch > slices60 {
			s.slices[i] = nil
			continue
		}
		count += sl.count
		measured += sl.addTo(&sum)
	}
	if count == 0 {
		return
	}
	// The oldest slice has in part left the minute; the present one has only begun.
	span := now.Sub(time.Unix((epoch-slices60)*int64(sliceLen/time.Second), 0))
	span = max(min(span, now.Sub(s.first)), time.Second)
	out.RPS = float64(count) / span.Seconds()
	out.P50, out.P99 = percentile(&sum, measured, 50), percentile(&sum, measured, 99)
	if durations {
		out.Durations = durationsOf(&sum)
	}
}

func quantile(sum *[buckets]uint64, total uint64, percent uint64) time.Duration {
	if total == 0 {
		return 0
	}
	rank := (total*percent + 99) / 100
	var seen uint64
	for b, n := range sum {
		if seen += n; seen >= rank {
			return middleOf(b)
		}
	}
	return 0
}

// Stats returns the figures of every function that was used, by namespace and name.
func (inv *Invoker) Stats() []FunctionStats { return inv.readStats(false) }

// Detailed is Stats with the durations, which are wanted to add the figures to another gateway's.
func (inv *Invoker) Detailed() []FunctionStats { return inv.readStats(true) }

func (inv *Invoker) readStats(durations bool) []FunctionStats {
	now := time.Now()
	var out []FunctionStats
	for ref, f := range inv.reg.all() {
		s := FunctionStats{Namespace: ref.Namespace, Function: ref.Name}
		f.stats.read(now, durations, &s)
		f.pool.mu.Lock()
		s.InFlight, s.Waiting = f.pool.inFlight, f.pool.sync.n
		f.pool.mu.Unlock()
		if s.Requests > 0 || s.InFlight > 0 || s.Waiting > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b FunctionStats) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function))
	})
	return out
}

// statusOf is what the client of a request that ended with err was shown.
func statusOf(err error) int {
	if errors.Is(err, errGone) {
		return problem.StatusClientGone
	}
	return fault.CodeOf(err).Status()
}
