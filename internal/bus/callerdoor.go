package bus

import (
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Each caller has an account of its own at the server, with three ways out: what it publishes on fn.{namespace}.{name} comes to the product's account as
// fn.{namespace}.{name}.{caller}, so that the gateways know who calls, and what is published there on result.{id}.{caller} it hears as
// result.{id}; what goes to subjects of its namespaces as destinations, it hears as it is. So a caller hears no answer and no result of another's, and no reply subject of its choice is ever published to on behalf of the product.

// accountPrefix begins the names of the callers' accounts.
const accountPrefix = "CALLER-"

// exports are what the product's account lets the callers' accounts have, in the server's configuration.
const exports = "exports: [ { service: \"" + SubjectCalls + "\" }, { stream: \"" + subjectResult + ".*.*\" }, { stream: \"" + subjectDestination + ".>\" } ]"

// call lets a caller in, or says why it may not be.
func (d *doorman) call(c server.ClientAuthentication) error {
	if d.callers == nil {
		return fault.New(fault.CodeDenied, "nobody may call")
	}
	if c.GetTLSConnectionState() == nil && !fromHere(c) {
		return fault.New(fault.CodeDenied, "it does not speak TLS, and is not on this machine")
	}
	// Nobody is let in while somebody is kicked out: whoever was admitted before is seen.
	d.joining.Lock()
	defer d.joining.Unlock()
	o := c.GetOpts()
	who, err := d.callers.admit(o.Username, o.Password)
	if err != nil {
		return err
	}
	acc, err := d.accountOf(&who)
	if err != nil {
		return fault.Wrap(fault.CodeInternal, err, "making the account of %s", who.ID)
	}
	c.RegisterUser(&server.User{Username: who.ID, Account: acc, Permissions: callerPermissions(&who)})
	return nil
}

// fromHere reports whether the client is on this machine.
func fromHere(c server.ClientAuthentication) bool {
	a, ok := c.RemoteAddress().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// accountOf returns a caller's account; d.joining is held.
func (d *doorman) accountOf(who *Caller) (*server.Account, error) {
	if acc := d.accounts[who.ID]; acc != nil {
		return acc, nil
	}
	home, err := d.srv.LookupAccount(AccountTatami)
	if err != nil {
		return nil, err
	}
	acc, err := d.srv.RegisterAccount(accountPrefix + who.ID)
	if err != nil {
		return nil, err
	}
	for _, ns := range who.Namespaces {
		if err := acc.AddServiceImport(home, callsOf(ns), callsOf(ns)+"."+who.ID); err != nil {
			return nil, fmt.Errorf("letting calls out: %w", err)
		}
		if err := acc.AddStreamImport(home, destinationsOf(ns), ""); err != nil {
			return nil, fmt.Errorf("letting records in: %w", err)
		}
	}
	if err := acc.AddMappedStreamImport(home, subjectResult+".*."+who.ID, subjectResult+".*"); err != nil {
		return nil, fmt.Errorf("letting results in: %w", err)
	}
	d.accounts[who.ID] = acc
	return acc, nil
}

// callsOf matches the calls of a namespace's functions.
func callsOf(namespace string) string { return subjectCall + "." + namespace + ".*" }

// destinationsOf matches the records that go to subjects of a namespace.
func destinationsOf(namespace string) string { return subjectDestination + "." + namespace + ".>" }

// callerPermissions are what a caller may say and hear.
func callerPermissions(who *Caller) *server.Permissions {
	var calls []string
	hears := []string{subjectResult + ".*", "_INBOX.>"}
	for _, ns := range who.Namespaces {
		calls, hears = append(calls, callsOf(ns)), append(hears, destinationsOf(ns))
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: calls},
		Subscribe: &server.SubjectPermission{Allow: hears},
	}
}

// kickCaller ends the connections of a caller.
func (d *doorman) kickCaller(id string) {
	d.joining.Lock()
	defer d.joining.Unlock()
	z, err := d.srv.Connz(&server.ConnzOptions{Username: true, User: id, Limit: mostKicked})
	if err != nil {
		d.log.Error("the connections of a revoked caller are not known", "caller", id, "err", err)
		return
	}
	for _, c := range z.Conns {
		_ = d.srv.DisconnectClientByID(c.Cid)
	}
}

// mostKicked is more connections than the server has.
const mostKicked = 1 << 20

// trespass is how the server logs that a caller said or wanted to hear what it may not. In what a client wrote itself the quotes are escaped.
var trespass = regexp.MustCompile(` - "` + accountPrefix + `(` + tokenPrefix + `[a-z0-9]+)/[^"]*" - ((?:Publish|Subscription) Violation .*)$`)

// overheardCaller takes note of what the server logs of callers that try what they may not; false where it is not about one.
func (d *doorman) overheardCaller(text string) bool {
	m := trespass.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	d.audit.refused(slogCaller(m[1]), "", errors.New(m[2]))
	return true
}
