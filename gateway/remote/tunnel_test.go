package remote

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/pki"
)

// What comes through a tunnel says that the worker lives.
func TestAnswersAreSignsOfLife(t *testing.T) {
	t.Parallel()
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	worker := pki.NewOwnKeeper(func() *pki.Authority { return a }, pki.Subject{Role: pki.RoleWorker, Name: "nod_a"}, time.Hour)
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	said := make(chan error, 1)
	go func() {
		_, err := tls.Server(there, worker.Ask()).Write([]byte("x"))
		said <- err
	}()
	l := &life{born: time.Now().Add(-time.Hour)}
	tn := &tunnel{Conn: tls.Client(here, &tls.Config{InsecureSkipVerify: true}), life: l}
	if err := tn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if l.sure() {
		t.Error("a worker that said nothing is taken to live")
	}
	if _, err := tn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-said; err != nil {
		t.Error(err)
	}
	if since := time.Duration(l.last.Load()); since < time.Hour {
		t.Errorf("the last sign came %s after the session's birth", since)
	}
}
