package gateway

import (
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config says where the gateway listens and what it takes.
type Config struct {
	// PublicAddr is the address of the public listener, host:port.
	PublicAddr string
	// ControlAddr is the address of the control listener; empty: the socket only.
	ControlAddr string
	// ControlSocket is the path of the control listener's unix socket; empty: none.
	ControlSocket string
	// Domain serves functions at {name}.{namespace}.{Domain} too; empty: by path only.
	Domain string
	// MaxBody is the largest body that the queue accepts, in bytes; 0 leaves it to the queue.
	MaxBody int64
	// MaxHeader is the largest header of a request, in bytes. Default 64 KiB. The data path refuses what is larger by a fault; twice as
	// much is refused by the server itself.
	MaxHeader int
	// DrainTimeout is how long requests may go on after Run's context ended. Default 30s.
	DrainTimeout time.Duration
	// WriteTimeout ends an answer of the platform's own of which the client takes nothing for so long. Default 20s.
	WriteTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxHeader == 0 {
		c.MaxHeader = int(64 * functions.KiB)
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 20 * time.Second
	}
	c.Domain = strings.ToLower(strings.Trim(c.Domain, "."))
	return c
}

func (c Config) validate() error {
	switch {
	case c.PublicAddr == "":
		return fault.New(fault.CodeInvalidRequest, "public-addr: no address is given").WithField("public-addr")
	case c.MaxHeader < 1<<10:
		return fault.New(fault.CodeInvalidRequest, "max-header: %d is less than 1024", c.MaxHeader).WithField("max-header")
	case c.MaxBody < 0:
		return fault.New(fault.CodeInvalidRequest, "max-body: %d is negative", c.MaxBody).WithField("max-body")
	case c.DrainTimeout < 0:
		return fault.New(fault.CodeInvalidRequest, "drain-timeout: %s is negative", c.DrainTimeout).WithField("drain-timeout")
	case c.WriteTimeout < 0:
		return fault.New(fault.CodeInvalidRequest, "write-timeout: %s is negative", c.WriteTimeout).WithField("write-timeout")
	case strings.ContainsAny(c.Domain, "/: "):
		return fault.New(fault.CodeInvalidRequest, "domain: %q is no domain name", c.Domain).WithField("domain")
	}
	return nil
}
