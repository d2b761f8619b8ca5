package bus

import (
	"bufio"
	"context"
	"crypto/tls"
	"strings"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// twinPatience is how long a peer is waited for that may be this server's twin: one that runs answers in milliseconds.
const twinPatience = time.Second

// twinText begins what the embedded server says of a peer that has its own name.
const twinText = "Remote server has a duplicate name"

// checkTwin refuses to start beside a server with this one's name: one of them runs on a copy of the other's data directory. The servers of a cluster
// tell each other by their names, and two that have one would both vote, and store, as the same one.
func (b *Bus) checkTwin(ctx context.Context) error {
	c := b.cfg.Cluster
	at := make([]bool, len(c.Peers))
	var asked sync.WaitGroup
	for i, peer := range c.Peers {
		if peer != c.Listen {
			asked.Go(func() { at[i] = b.hasName(ctx, peer) })
		}
	}
	asked.Wait()
	for i, peer := range c.Peers {
		if at[i] {
			return b.twinFault(peer)
		}
	}
	return nil
}

// hasName reports whether the server at an address shows a certificate of this cluster with this server's name.
func (b *Bus) hasName(ctx context.Context, peer string) bool {
	ctx, cancel := context.WithTimeout(ctx, twinPatience)
	defer cancel()
	server := pki.Only(pki.RoleServer)
	name := ""
	// Whoever has another name is let in, too: it need not log that somebody was not content with it.
	d := tls.Dialer{Config: b.keeper.Reach(func(s pki.Subject) error {
		name = s.Name
		return server(s)
	})}
	conn, err := d.DialContext(ctx, "tcp", peer)
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	// It begins to speak, and would log that it could not: what it says is heard to the end of the line.
	_, _ = bufio.NewReader(conn).ReadString('\n')
	return name == b.identity.ServerName
}

// twinFault says that the server at an address, "" where that is not known, has this one's name, and what to do.
func (b *Bus) twinFault(peer string) error {
	dir, me := b.cfg.DataDir, b.cfg.Cluster.Listen
	other := "another server of the cluster"
	if peer != "" {
		other = "the server at " + peer
	}
	switch b.identity.Peer {
	case "":
		return fault.New(fault.CodeConflict, "%s has this one's name, %s: one of them is on a copy of the other's data directory", other, b.identity.ServerName).
			WithHint("two with one name would harm what the cluster holds: start the one with the copy on an empty --data-dir; it gets everything from the others")
	case me:
		return fault.New(fault.CodeConflict, "%s has this one's name, %s: it is on a copy of %s", other, b.identity.ServerName, dir).
			WithHint("two with one name would harm what the cluster holds: stop that one, start this one, and then that one on an empty --data-dir; it gets everything from the others")
	}
	return fault.New(fault.CodeConflict, "%s has this one's name, %s: %s is a copy of the directory of the server that was at %s", other, b.identity.ServerName, dir, b.identity.Peer).
		WithHint("two with one name would harm what the cluster holds: start this one on an empty --data-dir; it gets everything from the others")
}

// twins takes note of what the embedded server says of peers that have its name. It is safe for concurrent use.
type twins struct {
	mu sync.Mutex
	// met is closed at the first of them, said is when the last was told of.
	met  chan struct{}
	said time.Time
}

func newTwins() *twins { return &twins{met: make(chan struct{})} }

// overheard reports whether a text tells of a twin, and whether that is to be told again.
func (t *twins) overheard(text string, now time.Time) (twin, tell bool) {
	if t == nil || !strings.Contains(text, twinText) {
		return false, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said.IsZero() {
		close(t.met)
	}
	tell = t.said.IsZero() || now.Sub(t.said) >= auditRepeat
	if tell {
		t.said = now
	}
	return true, tell
}

// giveWay returns why this server ends while the cluster forms: another one has its name, and nothing says that this one is the original.
func (b *Bus) giveWay() error {
	select {
	case <-b.door.twins.met:
	default:
		return nil
	}
	if b.identity.Peer == b.cfg.Cluster.Listen {
		return nil
	}
	return b.twinFault("")
}

// settleAt writes down which of the peers this server is: a copy of its directory is told from it by that.
func (b *Bus) settleAt() error {
	if b.identity.Peer == b.cfg.Cluster.Listen {
		return nil
	}
	id := b.identity
	id.Peer = b.cfg.Cluster.Listen
	if err := id.write(b.cfg.DataDir); err != nil {
		return err
	}
	b.identity = id
	return nil
}
