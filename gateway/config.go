package gateway

import (
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
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
	// DrainTimeout is how long requests may go on after Run's context, and LameDuck, ended. Default 30s.
	DrainTimeout time.Duration
	// LameDuck is how long the gateway goes on taking requests once Run's context has ended, while readiness says that it is stopping and every answer ends
	// its connection: so long load balancers and clients have to look elsewhere. 0: not at all.
	LameDuck time.Duration
	// WriteTimeout ends an answer of the platform's own of which the client takes nothing for so long. Default 20s.
	WriteTimeout time.Duration
	// HeaderTimeout is how long a client may take to say what it wants. Default 10s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept for the next request. Default 2m.
	IdleTimeout time.Duration
	// MaxConnections is how many connections the public listener holds: for one more, the one that has been idle longest gives way, and
	// where none is idle the new one is refused with 503. Default a third of the files that the process may open, at most 65,536.
	MaxConnections int
	// Awake is told when connections and requests come to the public listener. May be nil.
	Awake *awake.Keeper
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
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = 10 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 2 * time.Minute
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = connectionsFor()
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
	case c.LameDuck < 0:
		return fault.New(fault.CodeInvalidRequest, "lame-duck: %s is negative", c.LameDuck).WithField("lame-duck")
	case c.WriteTimeout < 0:
		return fault.New(fault.CodeInvalidRequest, "write-timeout: %s is negative", c.WriteTimeout).WithField("write-timeout")
	case c.HeaderTimeout < 0:
		return fault.New(fault.CodeInvalidRequest, "header-timeout: %s is negative", c.HeaderTimeout).WithField("header-timeout")
	case c.IdleTimeout < 0:
		return fault.New(fault.CodeInvalidRequest, "idle-timeout: %s is negative", c.IdleTimeout).WithField("idle-timeout")
	case c.MaxConnections < 0:
		return fault.New(fault.CodeInvalidRequest, "max-connections: %d is negative", c.MaxConnections).WithField("max-connections")
	case strings.ContainsAny(c.Domain, "/: "):
		return fault.New(fault.CodeInvalidRequest, "domain: %q is no domain name", c.Domain).WithField("domain")
	}
	return nil
}
