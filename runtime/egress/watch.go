//go:build linux

package egress

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// checkTime is how often table, forwarding and nameservers are looked at without a cause.
	checkTime = 10 * time.Second
	// calmTime keeps a host whose rules change without end from keeping us busy.
	calmTime = 20 * time.Millisecond
)

// keep repairs what other programs do to the table, at once where the kernel tells of it, and follows changes of the host.
func (n *Network) keep(ctx context.Context) {
	changes := make(chan struct{}, 1)
	if conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		n.log.Warn("changes of the host's packet filter are found by looking only", "err", err)
	} else {
		done := make(chan struct{})
		go func() {
			defer close(done)
			listen(conn, changes)
		}()
		defer func() {
			conn.Close()
			<-done
		}()
	}
	tick := time.NewTicker(checkTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changes:
		}
		n.check()
		select {
		case <-ctx.Done():
			return
		case <-time.After(calmTime):
		}
	}
}

// listen tells of changes until the connection is closed.
func listen(conn *netlink.Conn, changes chan<- struct{}) {
	if conn.JoinGroup(unix.NFNLGRP_NFTABLES) != nil {
		return
	}
	for {
		_, err := conn.Receive()
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF) {
			return
		}
		// Any other error means that changes were missed.
		select {
		case changes <- struct{}{}:
		default:
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

func (n *Network) check() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return
	}
	whole, err := n.now.intact()
	if err == nil && !whole {
		n.log.Warn("another program has changed the sandboxes' packet filter; it is written again", "table", n.now.tableName())
	}
	if err == nil {
		err = n.refresh(!whole)
	}
	for _, s := range n.owners {
		// Switching the host's forwarding off switches every device's off. One that is just being made has no setting yet.
		if serr := writeSetting(s.name(n.prefix), "forwarding", "1"); serr != nil && !errors.Is(serr, fs.ErrNotExist) && err == nil {
			err = serr
		}
	}
	if err != nil {
		n.log.Error("the network of the functions with egress cannot be kept", "err", err)
	}
}
