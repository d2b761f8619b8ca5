package intake

import (
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config bounds the intake. A zero field stands for its default.
type Config struct {
	// AtOnce is how many messages are accepted at the same time: they share the waits for the disk. Default 256.
	AtOnce int
	// MaxWaiting and MaxWaitingBytes bound the messages that wait for their turn; those beyond are refused. Defaults 8192 and 64 MiB.
	MaxWaiting      int
	MaxWaitingBytes int64
	// MaxBody is the largest body, in bytes; 0 leaves it to the queue.
	MaxBody int64
}

func (c Config) withDefaults() Config {
	if c.AtOnce == 0 {
		c.AtOnce = 256
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 8192
	}
	if c.MaxWaitingBytes == 0 {
		c.MaxWaitingBytes = 64 * functions.MiB
	}
	return c
}

func (c Config) validate() error {
	if c.AtOnce < 1 || c.MaxWaiting < 1 || c.MaxWaitingBytes < 1 || c.MaxBody < 0 {
		return fault.New(fault.CodeInvalidRequest, "a bound of the intake is not above zero")
	}
	return nil
}
