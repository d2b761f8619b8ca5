package bus

import (
	"net"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config says where the bus keeps its data and how much it may hold.
type Config struct {
	// DataDir is the data directory; it is made, mode 0700, where it is missing. One process holds it at a time.
	DataDir string
	// MaxStore bounds what streams and buckets hold together, in bytes. Default: the size of the filesystem, so that ReserveBytes is
	// what stops acceptance.
	MaxStore int64
	// ReserveBytes is kept free on the filesystem, and below MaxStore: acceptance stops there, so that there is room to finish what was
	// accepted. Default: 1 % of the filesystem, at least 64 MiB and at most 1 GiB.
	ReserveBytes int64
	// RequireDurable refuses a filesystem on which power loss may lose what was accepted.
	RequireDurable bool
	// ResultTTL is how long results are kept. Default 24h.
	ResultTTL time.Duration
	// DeadTTL is how long dead letters are kept. Default 14 days.
	DeadTTL time.Duration
	// SyncInterval is how often the server itself syncs what no barrier covered. Default 1s.
	SyncInterval time.Duration
	// Listen is the address at which NATS clients connect: workers that join, and callers; empty: none may. Port 0 picks a free one.
	Listen string
	// Cluster makes the server a member of a cluster, which needs Listen; nil: it stands alone.
	Cluster *ClusterConfig
	// CertificateLife is how long the certificates of servers and workers are good; they are replaced when two thirds of it are over. Default 24h.
	CertificateLife time.Duration
}

const (
	maxPayload = 8 * functions.MiB
	// maxDeadBytes bounds the dead letters where MaxStore allows it.
	maxDeadBytes = functions.GiB

	minReserve = 64 * functions.MiB
	maxReserve = functions.GiB
)

func (c Config) withDefaults() Config {
	if c.ResultTTL == 0 {
		c.ResultTTL = 24 * time.Hour
	}
	if c.DeadTTL == 0 {
		c.DeadTTL = 14 * 24 * time.Hour
	}
	if c.SyncInterval == 0 {
		c.SyncInterval = time.Second
	}
	if c.CertificateLife == 0 {
		c.CertificateLife = 24 * time.Hour
	}
	return c
}

// withDisk fills in what follows from the size of the filesystem.
func (c Config) withDisk(size int64) Config {
	if c.MaxStore == 0 {
		c.MaxStore = size
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = min(max(size/100, minReserve), maxReserve)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.DataDir == "":
		return fault.New(fault.CodeInvalidRequest, "no data directory is given").WithField("data-dir")
	case c.MaxStore < 0 || c.MaxStore > 0 && c.MaxStore < 16*functions.MiB:
		return fault.New(fault.CodeInvalidRequest, "max-store: %d bytes is less than 16 MiB", c.MaxStore).WithField("max-store")
	case c.ReserveBytes < 0:
		return fault.New(fault.CodeInvalidRequest, "reserve: %d is negative", c.ReserveBytes).WithField("reserve")
	case c.ResultTTL < time.Second:
		return fault.New(fault.CodeInvalidRequest, "result-ttl: %s is less than 1s", c.ResultTTL).WithField("result-ttl")
	case c.DeadTTL < time.Second:
		return fault.New(fault.CodeInvalidRequest, "dead-ttl: %s is less than 1s", c.DeadTTL).WithField("dead-ttl")
	case c.SyncInterval < time.Millisecond:
		return fault.New(fault.CodeInvalidRequest, "sync-interval: %s is less than 1ms", c.SyncInterval).WithField("sync-interval")
	case c.CertificateLife < time.Second:
		return fault.New(fault.CodeInvalidRequest, "certificate-life: %s is less than 1s", c.CertificateLife).WithField("certificate-life")
	}
	if c.Listen != "" {
		if err := CheckAddress("nats-listen", c.Listen); err != nil {
			return err
		}
	}
	if c.Cluster == nil {
		return nil
	}
	if c.Listen == "" {
		return fault.New(fault.CodeInvalidRequest, "nats-listen: the servers of a cluster run no instances, and no worker could join").WithField("nats-listen")
	}
	return c.Cluster.validate()
}

// clusterName is empty where the server stands alone.
func (c Config) clusterName() string {
	if c.Cluster == nil {
		return ""
	}
	return c.Cluster.Name
}

// mode is that of the data directory.
func (c Config) mode() string {
	if c.Cluster != nil {
		return ModeCluster
	}
	return ModeStandalone
}

// CheckAddress refuses what is not HOST:PORT, where others are told the address. Field names it.
func CheckAddress(field, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		return fault.New(fault.CodeInvalidRequest, "%s: %q is no address such as 127.0.0.1:4222", field, addr).WithField(field)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fault.New(fault.CodeInvalidRequest, "%s: %q does not say by which address others reach this machine", field, addr).
			WithField(field).WithHint("name one of the machine's own addresses, such as 127.0.0.1:%s", port)
	}
	return nil
}
