package autoscale

import (
	"cmp"
	"fmt"
	"time"
)

// The constants of the model.
const (
	// Utilization is the share of its concurrency that an instance should carry under steady load, unless the function says otherwise.
	Utilization = 0.7
	// MaxWindow and MinWindow bound the stable window of a function that does not set it; PanicShare is the panic window's part of it.
	MaxWindow  = 60 * time.Second
	MinWindow  = 6 * time.Second
	PanicShare = 10
	// PanicThreshold is how many times the ready instances a surge must need.
	PanicThreshold = 2
	// UpRate is how many times the ready instances one decision may want; none ready counts as one.
	UpRate = 1000
	// DownRate is what one fall divides by at most, Step the time between two falls.
	DownRate = 2
	Step     = 2 * time.Second
	// Hysteresis is how much higher than it is the steady load is taken to be on the way down.
	Hysteresis = 0.1
)

// Scale is what the function's configuration says. A zero field that has a default stands for it.
type Scale struct {
	// Min and Reserved hold without demand too, Initial as long as the function is in use.
	Min, Max, Initial int
	// Reserved is how many instances there should be beyond what the load needs.
	Reserved int
	// Concurrency is how many invocations one instance runs at once.
	Concurrency int
	// Utilization is the share of Concurrency that steady load should take. Default Utilization.
	Utilization float64
	// Burst is how many invocations more than now should find a free slot at once, while the function is in use.
	Burst int
	// Window is the stable window. Default: a minute, or the keep-alive where that is shorter, MinWindow at least.
	Window time.Duration
	// KeepAlive is how long after the last demand the function still counts as in use.
	KeepAlive time.Duration
	// DownDelay is how long fewer must have been enough before the number falls, to zero too. Default: the stable window, and to zero none.
	DownDelay time.Duration
	// UpRate and DownRate default to the constants.
	UpRate, DownRate float64
}

// Stable returns the stable window.
func (s Scale) Stable() time.Duration {
	return cmp.Or(s.Window, min(max(s.KeepAlive, MinWindow), MaxWindow))
}

// panicWindow is long enough for a gateway's statement, which comes once a second.
func (s Scale) panicWindow() time.Duration { return max(s.Stable()/PanicShare, time.Second) }

// delay is how long what was wanted still counts.
func (s Scale) delay() time.Duration { return cmp.Or(s.DownDelay, s.Stable()) }

// target is the concurrency that one instance should carry.
func (s Scale) target() float64 {
	return float64(s.Concurrency) * cmp.Or(s.Utilization, Utilization)
}

// rest is how many there are without demand.
func (s Scale) rest() int { return min(max(s.Min, s.Reserved, 0), s.most()) }

// resting says what rest comes from.
func (s Scale) resting() string {
	if s.Reserved > s.Min {
		return fmt.Sprintf("scale.reserved is %d", s.Reserved)
	}
	return fmt.Sprintf("scale.min is %d", s.Min)
}

func (s Scale) most() int { return max(s.Max, s.Min) }
