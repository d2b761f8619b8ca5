package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// runCertificates has servers see to their certificates until the test ends, or the function returned is called.
func runCertificates(t *testing.T, b *bus.Bus) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Certificates().Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the certificates' end: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func pin(b *bus.Bus) string {
	now, _ := b.Certificates().Authorities()
	return now.Trust().Pin()
}

func retired(b *bus.Bus) bool {
	_, before := b.Certificates().Authorities()
	return before == nil
}

// workerToken reads the token with which any worker may join.
func workerToken(t *testing.T, b *bus.Bus) string {
	t.Helper()
	token, err := bus.ReadToken(filepath.Join(b.DataDir(), bus.WorkerTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// The authority is rotated while workers are connected, without a connection ending; one that is away is waited for, and tokens of before are good
// until it has followed. Afterwards they are not, and everybody who has joined comes back with whatever token it has.
func TestTheAuthorityIsRotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, token, stop := server(t, bus.Config{DataDir: dir})
	addr := strings.TrimPrefix(b.ListenURL(), "nats://")
	seen := runCertificates(t, b)
	first := pin(b)
	home, away := t.TempDir(), t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	runLink(t, l)
	gone := join(t, bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: token})
	gone.Close(t.Context())
	before, _ := serial(t, home)

	if err := b.Certificates().Rotate(false); err != nil {
		t.Fatal(err)
	}
	until(t, "the worker follows, and the one that is away is waited for", func() bool {
		return slices.Equal(b.Certificates().Waits(), []string{string(gone.Identity().Node)})
	})
	if err := b.Certificates().Rotate(false); !fault.Is(err, fault.CodeConflict) || !strings.Contains(err.Error(), string(gone.Identity().Node)) {
		t.Errorf("a second rotation meanwhile: %v", err)
	}
	if now, _ := serial(t, home); now == before || pin(b) == first || retired(b) {
		t.Errorf("the worker has %s, the authority is %s", now, pin(b))
	}
	// It is remembered over a restart, and so is who is waited for.
	seen()
	stop()
	b, _, stop = server(t, bus.Config{DataDir: dir, Listen: addr})
	seen = runCertificates(t, b)
	late := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	runLink(t, late)
	if retired(b) || pin(b) == first {
		t.Errorf("after a restart the authority is %s", pin(b))
	}
	back := join(t, bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: token})
	runLink(t, back)
	until(t, "everybody has followed, and the old one is retired", func() bool { return retired(b) })
	for _, c := range b.Certificates().List() {
		if c.Serial == "" || c.Until.Before(time.Now()) {
			t.Errorf("%+v", c)
		}
	}
	until(t, "nobody believes the old one", func() bool {
		return !slices.ContainsFunc(b.Certificates().List(), func(c bus.Certificate) bool { return c.Behind })
	})
	if n := late.Conn().Stats().Reconnects + back.Conn().Stats().Reconnects; n != 0 {
		t.Errorf("workers connected %d times again", n)
	}
	back.Close(t.Context())
	join(t, bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: token})
	_, err := bus.Join(bus.JoinConfig{DataDir: t.TempDir(), URL: b.ListenURL(), Token: token}, discard())
	wantCode(t, err, fault.CodeDenied)
	join(t, bus.JoinConfig{URL: b.ListenURL(), Token: workerToken(t, b)})
	wantAudited(t, b, "authority-rotated", "", "")
	wantAudited(t, b, "authority-retired", "", "")
	seen()
	stop()
}

// An authority that is not trusted any more is replaced at once: who is connected follows, who is away needs a new token, and certificates of the old
// one are refused.
func TestTheAuthorityIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	runCertificates(t, b)
	old := readAuthority(t, b.DataDir())
	home, away := t.TempDir(), t.TempDir()
	l := join(t, bus.JoinConfig{DataDir: home, URL: b.ListenURL(), Token: token})
	runLink(t, l)
	gone := join(t, bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: token})
	gone.Close(t.Context())
	if err := b.Certificates().Rotate(true); err != nil {
		t.Fatal(err)
	}
	if !retired(b) || pin(b) == old.Trust().Pin() {
		t.Errorf("the authority is %s", pin(b))
	}
	until(t, "the worker follows", func() bool {
		return slices.ContainsFunc(b.Certificates().List(), func(c bus.Certificate) bool {
			return c.Who == string(l.Identity().Node) && !c.Behind
		})
	})
	if n := l.Conn().Stats().Reconnects; n != 0 {
		t.Errorf("the worker connected %d times again", n)
	}
	_, err := bus.Join(bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: token}, discard())
	wantCode(t, err, fault.CodeDenied)
	join(t, bus.JoinConfig{DataDir: away, URL: b.ListenURL(), Token: workerToken(t, b)})
	wantAudited(t, b, "authority-replaced", "", "")
}

// The servers of a cluster rotate their authority together; one that is away is waited for, and comes back with the secret of before.
func TestAClusterRotatesItsAuthority(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	stop := make([]func(), len(c.buses))
	for i, b := range c.buses {
		stop[i] = runCertificates(t, b)
	}
	l := join(t, bus.JoinConfig{URL: c.buses[0].ListenURL(), Token: workerToken(t, c.buses[1])})
	runLink(t, l)
	first := pin(c.buses[0])
	everybody := func(what string, which ...int) {
		t.Helper()
		until(t, what, func() bool {
			return !slices.ContainsFunc(which, func(i int) bool { return !retired(c.buses[i]) || pin(c.buses[i]) != pin(c.buses[which[0]]) })
		})
	}
	insistently(t, "rotating", func() error { return c.buses[1].Certificates().Rotate(false) })
	until(t, "all three have another one", func() bool { return pin(c.buses[0]) != first && pin(c.buses[2]) != first })
	everybody("all three follow", 0, 1, 2)
	if n := l.Conn().Stats().Reconnects; n != 0 {
		t.Errorf("the worker connected %d times again", n)
	}
	for i, b := range c.buses {
		wantAudited(t, b, "authority-rotated", "", "")
		until(t, fmt.Sprintf("server %d has heard of all", i), func() bool { return len(b.Certificates().List()) == 4 })
	}

	second := pin(c.buses[0])
	stop[2]()
	c.close(2)
	insistently(t, "rotating without one", func() error { return c.buses[0].Certificates().Rotate(false) })
	until(t, "the worker follows", func() bool {
		waits := c.buses[0].Certificates().Waits()
		return len(waits) == 1 && !strings.HasPrefix(waits[0], "nod_")
	})
	if retired(c.buses[0]) || pin(c.buses[0]) == second {
		t.Error("the server that is away is not waited for")
	}
	c.open(2)
	stop[2] = runCertificates(t, c.buses[2])
	everybody("the one that came back has followed", 0, 1, 2)

	// One that is away when nobody is waited for has to be given the new secret.
	stop[2]()
	c.close(2)
	insistently(t, "replacing", func() error {
		if err := c.buses[0].Certificates().Rotate(true); !fault.Is(err, fault.CodeConflict) {
			return err
		}
		return errors.New("changed meanwhile")
	})
	everybody("the others follow", 0, 1)
	until(t, "no connection of servers is of before", func() bool {
		here, staleHere := c.buses[0].Routes()
		there, staleThere := c.buses[1].Routes()
		return here > 0 && there > 0 && staleHere+staleThere == 0
	})
	secret, err := os.ReadFile(filepath.Join(c.cfgs[0].DataDir, bus.AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	c.cfgs[2].Cluster.Authority = secret
	c.open(2)
	everybody("it is back", 0, 1, 2)
}

// Who was removed through one server is cut off at the others, also where one of them reads the roster before it is told.
func TestARemovedWorkerIsCutOffEverywhere(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	for range 5 {
		l := join(t, bus.JoinConfig{URL: c.buses[1].ListenURL(), Token: workerToken(t, c.buses[0])})
		insistently(t, "removing", func() error { return c.buses[0].Roster().Remove(l.Identity().Node, "test") })
		newToken(t, c.buses[1], "somebody")
		until(t, "its connection ends", func() bool { return !l.Conn().IsConnected() })
	}
}
