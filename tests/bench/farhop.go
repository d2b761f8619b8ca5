package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/pki"
)

// farHopVerb has the program be the far one of two hops.
const farHopVerb = "far-hop"

// hops are two bare hops, one behind the other and each a process, with TLS between them: about the least that a call costs which goes through a gateway
// and a worker elsewhere.
type hops struct {
	near *hop
	far  *exec.Cmd
	// end ends the far one when it is closed.
	end io.Closer
}

func startHops(pid int) (*hops, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	far := exec.Command(self, farHopVerb, strconv.Itoa(pid))
	far.Stderr = os.Stderr
	in, err := far.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := far.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := far.Start(); err != nil {
		return nil, err
	}
	h := &hops{far: far, end: in}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		h.near, err = startHopBy(overTLS(strings.TrimSpace(addr)), nil)
	}
	if err != nil {
		return nil, errors.Join(err, h.stop())
	}
	return h, nil
}

// overTLS connects to the far hop. Who that is was told by itself.
func overTLS(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return tls.Client(overSocket(nc), &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}), nil
	}
}

// stop ends both; the clients have ended their connections.
func (h *hops) stop() error {
	if h.near != nil {
		h.near.stop()
	}
	return errors.Join(h.end.Close(), h.far.Wait())
}

// farHopMain is a hop to the instance whose process is named, for clients with TLS, until the standard input ends.
func farHopMain(args []string) int {
	if err := farHop(args); err != nil {
		fmt.Fprintf(os.Stderr, "bench: the far hop: %v\n", err)
		return 1
	}
	return 0
}

func farHop(args []string) error {
	if len(args) != 1 {
		return errors.New("one process is wanted")
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	dial, err := dialerInto(pid)
	if err != nil {
		return err
	}
	a, err := pki.NewAuthority(time.Now())
	if err != nil {
		return err
	}
	own := pki.NewOwnKeeper(func() *pki.Authority { return a }, pki.Subject{Role: pki.RoleWorker, Name: "far"}, time.Hour)
	h, err := startHopBy(dial, own.Ask())
	if err != nil {
		return err
	}
	defer h.stop()
	fmt.Println(h.listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
