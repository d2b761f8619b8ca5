package bus

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// WorkerTokenFile is the name of the file in the data directory that holds the token with which workers join.
const WorkerTokenFile = "worker.token"

// The users of this process. A worker's user is its node's id.
const (
	userSystem = "system"
	userTatami = "tatami"
)

// doorman decides who may connect to the server, and what a connection may say and hear: this process everything, a worker what concerns
// its own node.
type doorman struct {
	pass  passwords
	token string
	// self is this process's own node, which no worker can be.
	self functions.NodeID
	// srv is set before the server starts.
	srv *server.Server
	log *slog.Logger
	// roster is nil where no worker may join. One worker at a time is let in.
	roster  *roster
	joining sync.Mutex
}

// Check lets a client in, or not.
func (d *doorman) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	switch o.Username {
	case userTatami:
		return equal(o.Password, d.pass.tatami) && d.register(c, AccountTatami, nil)
	case userSystem:
		return equal(o.Password, d.pass.system) && d.register(c, AccountSystem, nil)
	}
	node := functions.NodeID(o.Username)
	token, secret, _ := strings.Cut(o.Password, " ")
	if d.token == "" || !node.Valid() || node == d.self || !equal(token, d.token) {
		return false
	}
	d.joining.Lock()
	defer d.joining.Unlock()
	err := d.roster.admit(node, secret)
	if err == nil {
		err = d.alone(c, node)
	}
	if err != nil {
		d.log.Warn("a worker is not let in", "node", node, "err", err)
		return false
	}
	return d.register(c, AccountTatami, workerPermissions(node))
}

// alone reports whether no other process is connected as the node. The process itself may be: it comes back before its last connection is seen to be gone.
func (d *doorman) alone(c server.ClientAuthentication, node functions.NodeID) error {
	conns, err := d.srv.Connz(&server.ConnzOptions{Username: true, User: string(node), Account: AccountTatami})
	if err != nil {
		return fmt.Errorf("looking for another worker of the node: %w", err)
	}
	for _, o := range conns.Conns {
		if o.Cid != c.GetID() && o.Name != c.GetOpts().Name {
			return fault.New(fault.CodeDenied, "another process is connected as %s, from %s:%d", node, o.IP, o.Port)
		}
	}
	return nil
}

func (d *doorman) register(c server.ClientAuthentication, account string, p *server.Permissions) bool {
	acc, err := d.srv.LookupAccount(account)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Username: c.GetOpts().Username, Account: acc, Permissions: p})
	return true
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// workerPermissions are what the worker of a node may say and hear. It has no access to JetStream: what it needs of the store it asks the
// desk for. So nothing answers a question of its on a subject of its choice.
func workerPermissions(node functions.NodeID) *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{ReportSubject(node), EndpointsSubject(node), SupplySubject(node)}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			CommandSubject(node), SubjectReportsWanted, SubjectEndpointsWanted, inboxOf(node) + ".>",
		}},
	}
}

// checkFree reports an address that cannot be listened on; the server itself would only log it.
func checkFree(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fault.Wrap(fault.CodeConflict, err, "workers cannot join at %s", addr).WithField("worker-listen").
			WithHint("end the program that has the port (sudo ss -ltnp), or give another --worker-listen")
	}
	return l.Close()
}

// minToken is the shortest token that is believed not to be guessed.
const minToken = 32

// joinToken reads the workers' token from the data directory, or makes it.
func joinToken(dir string) (string, error) { return secretIn(dir, WorkerTokenFile) }

// secretIn reads a secret from a file of the data directory, or makes it.
func secretIn(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	token, err := ReadToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	var b [24]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b[:])
	token = hex.EncodeToString(b[:])
	if err := writeDurably(dir, name, []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("writing %s: %w", path, err)
	}
	return token, nil
}

// ReadToken reads a token from a file that nobody but its owner may read.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidRequest, err, "the token cannot be read").WithField("token-file").
			WithHint("it is in the server's data directory, as %s, once `tatami up --worker-listen ADDR` has run", WorkerTokenFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.CodeInvalidRequest, "others may read the token in %s", path).WithField("token-file").WithHint("chmod 600 %s", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidRequest, err, "the token cannot be read").WithField("token-file")
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minToken || strings.ContainsAny(token, " \t\r\n") {
		return "", fault.New(fault.CodeInvalidRequest, "%s holds no token", path).WithField("token-file").
			WithHint("remove the file in the server's data directory and start the server again: it makes a new one")
	}
	return token, nil
}
