package live

import (
	"slices"
	"time"
)

// The columns of a Point.
const (
	colTime = iota
	colRPS
	colP50
	colP99
	colErrors
	colCold
	colQueue
	colCPUUsed
	colCPUReserved
	colMemUsed
	colMemReserved
)

var columns = [...]string{
	colTime: "t", colRPS: "rps", colP50: "p50Ms", colP99: "p99Ms", colErrors: "errorsPerSecond", colCold: "coldStarts", colQueue: "queued",
	colCPUUsed: "cpuUsed", colCPUReserved: "cpuReserved", colMemUsed: "memoryUsed", colMemReserved: "memoryReserved",
}

const (
	historyStep = 5 * time.Second
	// historyLen points are 15 minutes.
	historyLen = 180
)

// history is the ring of points; the last one is still being filled.
type history struct {
	points []Point
	// requests and errors are the counts in the last point, since when its rate is taken.
	requests, errors uint64
	begin            time.Time
}

// add takes the totals of now and what happened since the last call, of which from is the time.
func (h *history) add(now, from time.Time, t Totals, requests, errors, cold uint64) {
	step := float64(now.Truncate(historyStep).Unix())
	if n := len(h.points); n == 0 || h.points[n-1][colTime] < step {
		if n == historyLen {
			h.points = slices.Delete(h.points, 0, 1)
		}
		h.points = append(h.points, Point{colTime: step})
		h.requests, h.errors, h.begin = 0, 0, from
	}
	h.requests += requests
	h.errors += errors
	p := &h.points[len(h.points)-1]
	if d := now.Sub(h.begin).Seconds(); d > 0 {
		p[colRPS] = round(float64(h.requests)/d, 100)
		p[colErrors] = round(float64(h.errors)/d, 100)
	}
	p[colCold] += float64(cold)
	p[colP50] = t.P50
	p[colP99] = max(p[colP99], t.P99)
	p[colQueue] = float64(t.Queued)
	p[colCPUUsed], p[colCPUReserved] = float64(t.CPU.Used), float64(t.CPU.Reserved)
	p[colMemUsed], p[colMemReserved] = float64(t.Memory.Used), float64(t.Memory.Reserved)
}

// tail is a copy of the last n points.
func (h *history) tail(n int) []Point { return slices.Clone(h.points[max(0, len(h.points)-n):]) }
