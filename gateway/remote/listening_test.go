package remote

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

// A worker is out of reach when so many of its signs of life are missing in a row, and not because this process stood still itself.
func TestListening(t *testing.T) {
	t.Parallel()
	const most = bus.SessionMissed * bus.SessionPing
	for name, tc := range map[string]struct {
		// pause is how long the worker says nothing between two lines, away how long this process stands still before it reads each.
		pause, away time.Duration
		heard       bool
	}{
		"it speaks":           {pause: bus.SessionPing, heard: true},
		"it stalls":           {pause: most - time.Millisecond, heard: true},
		"it is silent":        {pause: most + time.Millisecond},
		"nobody listened":     {pause: bus.SessionPing, away: 3 * most, heard: true},
		"nobody spoke either": {pause: 5 * most, away: 3 * most},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				var worker sync.WaitGroup
				defer worker.Wait()
				defer here.Close()
				worker.Go(func() {
					for range 3 {
						time.Sleep(tc.pause)
						if _, err := there.Write([]byte{'.'}); err != nil {
							return
						}
					}
				})
				l := &listening{here, here}
				for range 3 {
					// What was waited for before says nothing now.
					_ = here.SetReadDeadline(time.Now().Add(bus.SessionPing))
					time.Sleep(tc.away)
					_, err := l.Read(make([]byte, 1))
					if heard := err == nil; heard != tc.heard {
						t.Fatalf("heard: %t, %v", heard, err)
					}
					if !tc.heard {
						if !errors.Is(err, os.ErrDeadlineExceeded) {
							t.Error(err)
						}
						return
					}
				}
			})
		})
	}
}
