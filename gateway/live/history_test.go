package live

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestHistoryIsARing(t *testing.T) {
	t.Parallel()
	var h history
	from := noon
	for s := 1; s <= 3600; s++ {
		now := noon.Add(time.Duration(s) * time.Second)
		h.add(now, from, Totals{P99: float64(s % 5), Queued: s}, 20, 2, 1)
		from = now
	}
	points := h.tail(historyLen)
	if len(points) != historyLen || len(h.points) != historyLen {
		t.Fatalf("%d points after an hour, want %d", len(points), historyLen)
	}
	for i, p := range points[:historyLen-1] {
		if i > 0 && p[colTime]-points[i-1][colTime] != historyStep.Seconds() {
			t.Fatalf("points %d and %d are %v s apart", i-1, i, p[colTime]-points[i-1][colTime])
		}
		if p[colRPS] != 20 || p[colErrors] != 2 || p[colCold] != 5 || p[colP99] != 4 {
			t.Fatalf("point %d is %v: want 20 requests/s, 2 errors/s, 5 cold starts, the step's greatest p99", i, p)
		}
	}
	last := points[historyLen-1]
	if last[colTime] != float64(noon.Add(time.Hour).Unix()) || last[colQueue] != 3600 {
		t.Errorf("the last point is %v", last)
	}
	points[0][colRPS] = -1
	if h.points[0][colRPS] == -1 {
		t.Error("tail gave away its own memory")
	}
}

func TestTrack(t *testing.T) {
	t.Parallel()
	tr := &track{}
	now := noon
	for range 1200 {
		now = now.Add(time.Second)
		tr.add(now, counts{10, 1, 0}, 0, 0)
	}
	if got := tr.rps(); got != 10 {
		t.Errorf("rps %v, want 10", got)
	}
	if len(tr.buckets) > sparkLen || len(tr.rate) > 12 {
		t.Errorf("%d buckets and %d samples are kept", len(tr.buckets), len(tr.rate))
	}
	if got := tr.over(sparkLen).requests; got < 29*300 || got > 30*300 {
		t.Errorf("%d requests in 15 minutes, want about 9000", got)
	}
	if got := tr.over(2).errorShare(); got != 0.1 {
		t.Errorf("the share of errors is %v, want 0.1", got)
	}
	for i, v := range tr.spark() {
		if v != 10 {
			t.Fatalf("step %d of the spark line is %v, want 10", i, v)
		}
	}
	// After a long silence nothing of before is left.
	now = now.Add(time.Hour)
	tr.add(now, counts{requests: 2}, 0, 0)
	if got := tr.over(sparkLen).requests; got != 2 {
		t.Errorf("%d requests after an hour of silence, want 2", got)
	}
	if got := tr.spark()[sparkLen-2]; got != 0 {
		t.Errorf("the spark line remembers %v", got)
	}
}

func TestTrackBeginsAtWhatItFinds(t *testing.T) {
	t.Parallel()
	tr := &track{}
	tr.add(noon, counts{}, 4, 9)
	if dead, failed := tr.grown(4, 9); dead != 0 || failed != 0 {
		t.Errorf("%d dead letters and %d failed starts count as new", dead, failed)
	}
	tr.add(noon.Add(time.Minute), counts{}, 6, 10)
	if dead, failed := tr.grown(6, 10); dead != 2 || failed != 1 {
		t.Errorf("%d new dead letters and %d failed starts, want 2 and 1", dead, failed)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	var u usage
	at := func(s float64) time.Time { return noon.Add(time.Duration(s * float64(time.Second))) }
	u = u.next(at(0), functions.Duration(time.Second))
	if u.millis != 0 {
		t.Errorf("%d millicores from one look", u.millis)
	}
	u = u.next(at(1), functions.Duration(time.Second))
	u = u.next(at(2), functions.Duration(2*time.Second))
	if u.millis != 500 {
		t.Errorf("%d millicores, want 500: one second of work in two", u.millis)
	}
	u = u.next(at(3), functions.Duration(2*time.Second))
	if u.millis != 500 {
		t.Errorf("%d millicores between two reports, want the last figure", u.millis)
	}
	u = u.next(at(8), functions.Duration(2*time.Second))
	if u.millis != 0 {
		t.Errorf("%d millicores after six idle seconds", u.millis)
	}
}
