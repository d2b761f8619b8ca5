package bus

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// WorkerTokenFile is the name of the file in the data directory that holds the token with which any worker may join.
const WorkerTokenFile = "worker.token"

// The users of this process. A worker's user is its node's id, a caller's is its token's.
const (
	userSystem = "system"
	userTatami = "tatami"
)

// doorman decides who may connect to the server, and what a connection may say and hear: this process everything, a worker what concerns
// its own node, a caller what concerns its own calls.
type doorman struct {
	pass passwords
	// self is this process's own node, which no worker can be.
	self functions.NodeID
	// srv is set before the server starts.
	srv *server.Server
	log *slog.Logger
	// roster is nil where no worker may join.
	roster *Roster
	audit  *audit
	// callers is nil where nobody may call.
	callers *Callers
	// keeper knows the authority of the certificates; nil where no worker may join.
	keeper *pki.Keeper

	// One client at a time is let in.
	joining sync.Mutex
	// accounts are the callers', by their ids; joining guards them.
	accounts map[string]*server.Account
	// sight says, in a cluster, whether workers are to go to another server; routes are the other servers' connections.
	sight  *sight
	routes *routes
	// twins are servers of the cluster with this one's name; nil where it stands alone.
	twins *twins
	// died has the last words of a server that could not start.
	died atomic.Pointer[string]

	// mu guards the maps, which name the connection that each node has, or had last. The server may log while it holds its own locks: nothing else is
	// locked within.
	mu     sync.Mutex
	byNode map[functions.NodeID]uint64
	byConn map[uint64]functions.NodeID
}

func newDoorman(pass passwords, self functions.NodeID, log *slog.Logger) *doorman {
	return &doorman{pass: pass, self: self, log: log, accounts: map[string]*server.Account{}, byNode: map[functions.NodeID]uint64{}, byConn: map[uint64]functions.NodeID{}}
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
	if strings.HasPrefix(o.Username, tokenPrefix) {
		err := d.call(c)
		if err != nil {
			id := o.Username
			if !isTokenID(id) {
				id = tokenPrefix + "?" // what it calls itself is anybody's text
			}
			if !d.hangUp(c, err) {
				d.audit.refused(slogCaller(id), remoteOf(c), err)
			}
		}
		return err == nil
	}
	node := functions.NodeID(o.Username)
	if d.sight != nil && d.sight.turnsAway(time.Now()) {
		return false
	}
	if err := d.letIn(c, node); err != nil {
		if d.hangUp(c, err) {
			return false
		}
		if !node.Valid() {
			node = "nod_?" // what it calls itself is anybody's text
		}
		d.audit.refused(slogNode(node), remoteOf(c), err)
		return false
	}
	return true
}

// hangUp ends the connection of somebody of whom the server does not know whether to let it in, as while the cluster forms, and reports whether it is so. A
// refusal is for ever: a worker that hears one for long ends what it runs.
func (d *doorman) hangUp(c server.ClientAuthentication, err error) bool {
	if fault.KindOf(err) != fault.Unavailable {
		return false
	}
	d.log.Debug("somebody is not let in for now", "from", remoteOf(c), "err", err)
	if gone := d.srv.DisconnectClientByID(c.GetID()); gone != nil {
		d.log.Debug("a connection ended by itself", "err", gone)
	}
	return true
}

// letIn makes a connection the one of a node's worker, or says why it may not be.
func (d *doorman) letIn(c server.ClientAuthentication, node functions.NodeID) error {
	switch {
	case d.roster == nil:
		return fault.New(fault.CodeDenied, "no worker may join")
	case !node.Valid():
		return fault.New(fault.CodeDenied, "it names no node")
	case node == d.self:
		return fault.New(fault.CodeDenied, "it names the server's own node")
	}
	certified, err := d.certified(c, node, time.Now())
	if err != nil {
		return err
	}
	d.joining.Lock()
	defer d.joining.Unlock()
	token, secret, _ := strings.Cut(c.GetOpts().Password, " ")
	if err := d.roster.admit(applicant{node, shownKey(c), token, secret}, time.Now()); err != nil {
		return err
	}
	if err := d.alone(c, node); err != nil {
		return err
	}
	// Before the next one is let in, or kicked out: until then the server does not count the connection to the account.
	may := workerPermissions(node)
	if !certified {
		may = applicantPermissions(node)
	}
	if !d.register(c, AccountTatami, may) {
		return fault.New(fault.CodeInternal, "the account %s is missing", AccountTatami)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byConn, d.byNode[node])
	d.byNode[node], d.byConn[c.GetID()] = c.GetID(), node
	return nil
}

// certified reports whether the client has shown a certificate, which must be the node's; without one it may ask for one.
func (d *doorman) certified(c server.ClientAuthentication, node functions.NodeID, now time.Time) (bool, error) {
	s := c.GetTLSConnectionState()
	if s == nil {
		return false, fault.New(fault.CodeDenied, "it does not speak TLS")
	}
	if len(s.PeerCertificates) == 0 {
		return false, nil
	}
	own, err := d.keeper.Identity()
	if err != nil {
		return false, err
	}
	peer, err := own.Trust().Check(s.PeerCertificates, now)
	if err == nil {
		err = pki.Just(workerSubject(node))(peer)
	}
	return err == nil, err
}

// shownKey is the public key whose private half the client has shown to hold; empty where it has shown none.
func shownKey(c server.ClientAuthentication) string {
	o := c.GetOpts()
	key, err := nkeys.FromPublicKey(o.Nkey)
	if err != nil || !nkeys.IsValidPublicUserKey(o.Nkey) || len(c.GetNonce()) == 0 {
		return ""
	}
	sig, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil || key.Verify(c.GetNonce(), sig) != nil {
		return ""
	}
	return o.Nkey
}

func remoteOf(c server.ClientAuthentication) string {
	if a := c.RemoteAddress(); a != nil {
		return a.String()
	}
	return ""
}

// alone reports whether no other process is connected as the node. The process itself may be: it comes back before its last connection is seen to be gone.
func (d *doorman) alone(c server.ClientAuthentication, node functions.NodeID) error {
	conns, err := d.conns(c.GetOpts().Nkey)
	if err != nil {
		return fmt.Errorf("looking for another worker of the node: %w", err)
	}
	for _, o := range conns {
		if o.Cid != c.GetID() && o.Name != c.GetOpts().Name {
			return fault.New(fault.CodeDenied, "another process is connected as %s, from %s", node, o.IP)
		}
	}
	return nil
}

// conns lists the connections of whoever has the key: the server knows who shows one by it.
func (d *doorman) conns(key string) ([]*server.ConnInfo, error) {
	z, err := d.srv.Connz(&server.ConnzOptions{Username: true, User: key, Account: AccountTatami})
	if err != nil {
		return nil, err
	}
	return z.Conns, nil
}

// kick ends the connections of a node's worker, which has the key.
func (d *doorman) kick(node functions.NodeID, key string) {
	// Nobody is let in meanwhile: whoever was admitted before the roster changed is seen.
	d.joining.Lock()
	defer d.joining.Unlock()
	if key == "" {
		return // it never connected with one
	}
	conns, err := d.conns(key)
	if err != nil {
		d.log.Error("the connections of a removed worker are not known", "node", node, "err", err)
	}
	for _, c := range conns {
		_ = d.srv.DisconnectClientByID(c.Cid)
	}
}

// kickAll ends the connections of all workers: they are to look for another server.
func (d *doorman) kickAll() {
	d.mu.Lock()
	conns := slices.Collect(maps.Keys(d.byConn))
	d.mu.Unlock()
	for _, id := range conns {
		_ = d.srv.DisconnectClientByID(id)
	}
}

// violation is how the server logs that a connection said or wanted to hear what it may not.
var violation = regexp.MustCompile(`cid:(\d+).* - ((Publish|Subscription) Violation - .*)$`)

// overheard takes note of what the server logs of workers and callers that try what they may not.
func (d *doorman) overheard(text string) {
	if d.overheardCaller(text) {
		return
	}
	m := violation.FindStringSubmatch(text)
	if m == nil {
		return
	}
	id, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return
	}
	d.mu.Lock()
	node := d.byConn[id]
	d.mu.Unlock()
	if node != "" {
		d.audit.refused(slogNode(node), "", errors.New(m[2]))
	}
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
		Publish: &server.SubjectPermission{Allow: []string{ReportSubject(node), EndpointsSubject(node), SupplySubject(node), CertifySubject(node), StandingSubject(string(node))}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			CommandSubject(node), SubjectReportsWanted, SubjectEndpointsWanted, SubjectCertificatesWanted, inboxOf(node) + ".>",
		}},
	}
}

// applicantPermissions are those of a worker that has no certificate yet: it may ask for it.
func applicantPermissions(node functions.NodeID) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{CertifySubject(node)}},
		Subscribe: &server.SubjectPermission{Allow: []string{inboxOf(node) + ".>"}},
	}
}

// CheckFree reports an address that cannot be listened on, by the flag that it is of; who are those that could not connect there. A server would only
// log it, or find it out once the other servers are there.
func CheckFree(ctx context.Context, flag, who, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fault.Wrap(fault.CodeConflict, err, "%s cannot connect at %s", who, addr).WithField(flag).
			WithHint("end the program that has the port (sudo ss -ltnp), or give another --%s, an address of this machine", flag)
	}
	return l.Close()
}

// minToken is the shortest token that is believed not to be guessed.
const minToken = 32

// joinToken reads the secret of the workers' token from the data directory, or makes it, unless it is fixed; and has the file name the
// authority's pin.
func joinToken(dir, fixed, pin string) (string, error) {
	path := filepath.Join(dir, WorkerTokenFile)
	token, err := ReadToken(path)
	if errors.Is(err, fs.ErrNotExist) {
		token, err = newSecret(), nil
	}
	if err != nil {
		return "", err
	}
	secret, known := splitToken(token)
	if fixed != "" && secret != fixed {
		secret, known = fixed, ""
	}
	if known == pin {
		return secret, nil
	}
	if err := writeDurably(dir, WorkerTokenFile, []byte(tokenText(secret, pin)+"\n")); err != nil {
		return "", fmt.Errorf("writing %s: %w", path, err)
	}
	return secret, nil
}

// CheckToken refuses what cannot be a token for joining.
func CheckToken(text string) error {
	if token := strings.TrimSpace(text); len(token) < minToken || strings.ContainsAny(token, " \t\r\n") {
		return fault.New(fault.CodeInvalidRequest, "it is no token")
	}
	return nil
}

// ReadToken reads a token from a file that nobody but its owner may read.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidRequest, err, "the token cannot be read").WithField("token-file").
			WithHint("make one where the server runs: tatami token create --node NAME --file FILE; or take the file %s of its data directory", WorkerTokenFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.CodeInvalidRequest, "others may read the token in %s", path).WithField("token-file").WithHint("chmod 600 %s", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Wrap(fault.CodeInvalidRequest, err, "the token cannot be read").WithField("token-file")
	}
	token := strings.TrimSpace(string(b))
	if CheckToken(token) != nil {
		return "", fault.New(fault.CodeInvalidRequest, "%s holds no token", path).WithField("token-file").
			WithHint("make another one where the server runs: tatami token create --node NAME --file FILE; the server's own file, %s, it makes anew when it is removed and the server restarted", WorkerTokenFile)
	}
	return token, nil
}
