package bus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// CallersFile is the name of the file in the server's data directory that says who may call functions over NATS.
const CallersFile = "callers.json"

// callersSchema is the schema number of that file.
const callersSchema = 1

const (
	// tokenPrefix begins the ids of all tokens. A caller's is its user's name, too.
	tokenPrefix = "tok_"
	// mostCallers bounds the callers; of those that were revoked the oldest go first.
	mostCallers = 10_000
	// mostNamespaces bounds the namespaces of one caller.
	mostNamespaces = 100
	// AllNamespaces stands for every namespace.
	AllNamespaces = "*"
)

// Caller is somebody who may call functions over NATS, with a user name, its ID, and a password. The password is told when it is made, and not kept.
type Caller struct {
	ID string `json:"id"`
	// Name is who it is, in the operator's words.
	Name string `json:"name"`
	// Namespaces are those whose functions it may call: names, or AllNamespaces alone.
	Namespaces []string `json:"namespaces"`
	// Hash is that of the password.
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
	// Revoked is when it was shut out for good; zero while it may connect.
	Revoked time.Time `json:"revoked,omitzero"`
}

func (c *Caller) made() (time.Time, string) { return c.Created, c.ID }

// Callers says who may call functions over NATS. It is safe for concurrent use.
type Callers struct {
	record[*callersFile]
	audit *audit
	// kick ends a caller's connections.
	kick func(id string)
}

type callersFile struct {
	Schema  int                `json:"schema"`
	Callers map[string]*Caller `json:"callers"`
}

// openCallers reads the callers of a data directory; there are none where nobody was let in yet.
func openCallers(dir string, a *audit) (*Callers, error) {
	cs := &Callers{audit: a}
	cs.record = record[*callersFile]{
		dir: dir, file: CallersFile, key: callersKey, what: "who may call", parse: parseCallers, encode: indented[*callersFile], heard: cs.heardOf, log: a.log,
		now: &callersFile{callersSchema, map[string]*Caller{}},
	}
	return cs, cs.load()
}

// heardOf ends the connections of callers that another server revoked.
func (cs *Callers) heardOf(old, now *callersFile) {
	for id, c := range now.Callers {
		if before := old.Callers[id]; !c.Revoked.IsZero() && before != nil && before.Revoked.IsZero() {
			cs.kick(id)
		}
	}
}

func parseCallers(path string, data []byte) (*callersFile, error) {
	f := &callersFile{}
	if n := schemaOf(data); n > callersSchema {
		return nil, newerRecord(path, n, callersSchema)
	}
	err := json.Unmarshal(data, f)
	bad := err != nil || f.Schema != callersSchema || f.Callers == nil
	for id, c := range f.Callers {
		bad = bad || c == nil || c.ID != id || !isTokenID(id) || checkNamespaces(c.Namespaces) != nil
	}
	if bad {
		return nil, fault.New(fault.CodeConflict, "%s cannot be read", path).
			WithHint("restore the file from a backup, or remove it and make the callers' tokens anew")
	}
	return f, nil
}

// isTokenID reports whether s can be the id of a token: it becomes part of subjects.
func isTokenID(s string) bool {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	return ok && rest != "" && len(rest) <= 32 && !strings.ContainsFunc(rest, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

func newTokenID() string { return tokenPrefix + strings.ToLower(rand.Text()[:12]) }

// newSecret is a text that nobody guesses.
func newSecret() string {
	var b [24]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func checkNamespaces(names []string) error {
	if len(names) == 1 && names[0] == AllNamespaces {
		return nil
	}
	if len(names) == 0 || len(names) > mostNamespaces {
		return fault.New(fault.CodeInvalidRequest, "namespaces: name 1 to %d, or %s for all", mostNamespaces, AllNamespaces).WithField("namespaces")
	}
	for i, ns := range names {
		if err := functions.ValidateName("namespaces", ns); err != nil {
			return err
		}
		if slices.Contains(names[:i], ns) {
			return fault.New(fault.CodeInvalidRequest, "namespaces: %s is named twice", ns).WithField("namespaces")
		}
	}
	return nil
}

// Create makes a caller of the functions in the namespaces; it returns the password beside the record.
func (cs *Callers) Create(name string, namespaces []string) (Caller, string, error) {
	if err := functions.CheckNodeLabel("caller", name); err != nil || name == "" || len(name) > functions.MaxName {
		return Caller{}, "", fault.New(fault.CodeInvalidRequest, "caller: %.80q is no name: 1 to %d bytes without control characters", name, functions.MaxName).WithField("caller")
	}
	if err := checkNamespaces(namespaces); err != nil {
		return Caller{}, "", err
	}
	secret := newSecret()
	c := &Caller{ID: newTokenID(), Name: name, Namespaces: slices.Clone(namespaces), Hash: hashOf(secret), Created: time.Now().UTC()}
	err := cs.alter(func() (do, undo func(), err error) {
		if !makeRoom(cs.now.Callers, mostCallers, func(c *Caller) bool { return !c.Revoked.IsZero() }) {
			return nil, nil, fault.New(fault.CodeConflict, "there are %d callers already", mostCallers).WithHint("revoke some: tatami token ls")
		}
		return func() { cs.now.Callers[c.ID] = c }, func() { delete(cs.now.Callers, c.ID) }, nil
	})
	if err != nil {
		return Caller{}, "", err
	}
	cs.audit.say("caller-created", slogCaller(c.ID), "for", name, "namespaces", strings.Join(namespaces, ","))
	return *c, secret, nil
}

func slogCaller(id string) slog.Attr { return slog.String("caller", id) }

// List lists the callers, the oldest first.
func (cs *Callers) List() []Caller {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return copies(byAge(cs.now.Callers))
}

// Revoke shuts a caller out for good and ends its connections. What it handed over goes on.
func (cs *Callers) Revoke(id string) (out Caller, err error) {
	revoked := false
	err = cs.alter(func() (do, undo func(), err error) {
		c := cs.now.Callers[id]
		if c == nil {
			return nil, nil, fault.New(fault.CodeNotFound, "there is no token %.40q", id).WithHint("tatami token ls")
		}
		if out = *c; !c.Revoked.IsZero() {
			return nil, nil, nil
		}
		revoked = true
		return func() { c.Revoked = time.Now().UTC(); out = *c }, func() { c.Revoked = time.Time{} }, nil
	})
	if err != nil {
		return Caller{}, err
	}
	if revoked {
		cs.audit.say("caller-revoked", slogCaller(id), "for", out.Name)
	}
	cs.kick(id)
	return out, nil
}

// admit returns the caller of a name and a password, or says why it is none.
func (cs *Callers) admit(id, secret string) (Caller, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.clustered && cs.revision == 0 {
		// What the servers have in common was not heard yet.
		if err := cs.refresh(); err != nil {
			return Caller{}, err
		}
	}
	c := cs.now.Callers[id]
	switch {
	case c == nil:
		return Caller{}, fault.New(fault.CodeDenied, "the caller is not known")
	case !equal(c.Hash, hashOf(secret)):
		return Caller{}, fault.New(fault.CodeDenied, "the password is wrong")
	case !c.Revoked.IsZero():
		return Caller{}, fault.New(fault.CodeDenied, "the caller was revoked")
	}
	return *c, nil
}
