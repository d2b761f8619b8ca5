package queue

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config bounds the queue. A zero field stands for its default.
type Config struct {
	// InlineBody is the largest body kept within a message; larger ones go to the object store. Default 512 KiB.
	InlineBody int64
	// MaxBody is the largest body of a request. Default 64 MiB.
	MaxBody int64
	// MaxResult is the largest body of a response that is kept; a larger one makes the invocation fail. Default 64 MiB.
	MaxResult int64
	// MaxHeld is how many invocations of one function are in hand at once, running or being finished. Default 1000.
	MaxHeld int
	// AckWait is how long a message stays with a process that does not say it is alive. Default 30s.
	AckWait time.Duration
	// IdleAfter is how long a lane outlives its last message. Default 5m.
	IdleAfter time.Duration
	// Drain is how long running attempts may go on after Run's context ended. Default 30s.
	Drain time.Duration
	// CancelGrace is how long a function whose instances run one invocation at a time may take to end a cancelled one before the instance is
	// stopped. Default 5s.
	CancelGrace time.Duration
	// BackoffBase and BackoffMax bound the wait before a retry: the base doubles with each attempt. Default 1s and 5m.
	BackoffBase, BackoffMax time.Duration
	// RetryShare and RetryFloor bound the retries of a function: so many for each first attempt, and so many a second besides; what is not used is
	// saved for ten seconds. A retry beyond them waits longer. Default 0.2 and 10.
	RetryShare, RetryFloor float64
	// Backstop is how long after its time the server delivers what waited for it and no process delivered. Default 10s.
	Backstop time.Duration
	// SweepEvery is how often bodies without an owner are removed. Default 1h.
	SweepEvery time.Duration
}

// maxWait bounds a long poll.
const maxWait = time.Minute

func (c Config) withDefaults() Config {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	size := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	size(&c.InlineBody, 512*functions.KiB)
	size(&c.MaxBody, 64*functions.MiB)
	size(&c.MaxResult, 64*functions.MiB)
	if c.MaxHeld == 0 {
		c.MaxHeld = 1000
	}
	if c.RetryShare == 0 {
		c.RetryShare = 0.2
	}
	if c.RetryFloor == 0 {
		c.RetryFloor = 10
	}
	set(&c.AckWait, 30*time.Second)
	set(&c.IdleAfter, 5*time.Minute)
	set(&c.Drain, 30*time.Second)
	set(&c.CancelGrace, 5*time.Second)
	set(&c.BackoffBase, time.Second)
	set(&c.BackoffMax, 5*time.Minute)
	set(&c.SweepEvery, time.Hour)
	set(&c.Backstop, 10*time.Second)
	return c
}

// A message holds its body in base64 beside up to 128 KiB of header: 4 MiB leaves room under the server's 8 MiB.
const maxInline = 4 * functions.MiB

func (c Config) validate() error {
	switch {
	case c.InlineBody < 0 || c.InlineBody > maxInline:
		return fault.New(fault.CodeInvalidRequest, "inline body: %d is not between 0 and %d", c.InlineBody, maxInline)
	case c.MaxBody < 0 || c.MaxResult < 0 || c.MaxHeld < 1:
		return fault.New(fault.CodeInvalidRequest, "a bound of the queue is negative")
	case c.RetryShare < 0 || c.RetryFloor < 0:
		return fault.New(fault.CodeInvalidRequest, "the budget of retries is negative")
	case c.AckWait < 100*time.Millisecond:
		return fault.New(fault.CodeInvalidRequest, "ack wait: %s is less than 100ms", c.AckWait)
	case c.BackoffBase < 0 || c.BackoffMax < c.BackoffBase || c.Drain < 0 || c.IdleAfter < 0 || c.Backstop < 0 || c.SweepEvery < 0 || c.CancelGrace < 0:
		return fault.New(fault.CodeInvalidRequest, "a time of the queue is negative, or the first backoff is longer than the last")
	}
	return nil
}
