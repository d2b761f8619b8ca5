package invoke

import (
	"slices"

	"github.com/tatami-faas/tatami/functions"
)

// Durations counts how long requests took: pairs of a bucket and how many are in it, the shortest first. The buckets are the same at all gateways.
type Durations [][2]uint64

// durationsOf lists the buckets with something in them.
func durationsOf(sum *[buckets]uint64) Durations {
	used := 0
	for _, n := range sum {
		if n > 0 {
			used++
		}
	}
	out := make(Durations, 0, used)
	for b, n := range sum {
		if n > 0 {
			out = append(out, [2]uint64{uint64(b), n})
		}
	}
	return out
}

// Add adds the counts, the levels and the rate of another function, or of the same one at another gateway.
func (s *FunctionStats) Add(o FunctionStats) {
	s.Requests += o.Requests
	s.Errors += o.Errors
	s.ColdStarts += o.ColdStarts
	s.InFlight += o.InFlight
	s.Waiting += o.Waiting
	s.RPS += o.RPS
}

// Merge adds another gateway's figures of the same function. Percentiles are of the durations of both. Codes are left to each gateway's own metrics.
func (s *FunctionStats) Merge(o FunctionStats) {
	s.Add(o)
	s.Codes = nil
	var sum [buckets]uint64
	var measured uint64
	for _, d := range slices.Concat(s.Durations, o.Durations) {
		if b, n := d[0], d[1]; b < buckets {
			sum[b] += n
			measured += n
		}
	}
	s.Durations = durationsOf(&sum)
	s.P50, s.P99 = percentile(&sum, measured, 50), percentile(&sum, measured, 99)
}

func percentile(sum *[buckets]uint64, measured uint64, percent uint64) functions.Duration {
	return functions.Duration(quantile(sum, measured, percent))
}
