package bus

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// RosterFile is the name of the file in the server's data directory that says which workers joined and which tokens let others join.
const RosterFile = "workers.json"

// rosterSchema is the schema number of that file. Up to 1 it had the hash of a secret for each worker, and no tokens.
const rosterSchema = 2

// mostWorkers bounds the roster: whoever has the shared token could fill the disk otherwise.
const mostWorkers = 20_000

// Roster says which workers may join, which did, and as whom: each node belongs to the worker that joined as it first, known by the key that it made
// itself. It is safe for concurrent use.
type Roster struct {
	record[*rosterFile]
	// shared are the secrets with which any worker may join.
	shared func() []string
	audit  *audit
	// pin is the authority's, which tokens name.
	pin func() string
	// kick ends the connections of a node's worker, which has the key.
	kick func(node functions.NodeID, key string)
}

type rosterFile struct {
	Schema  int                          `json:"schema"`
	Workers map[functions.NodeID]*member `json:"workers"`
	Tokens  map[string]*JoinToken        `json:"tokens,omitempty"`
}

// member is a worker that joined.
type member struct {
	// Key is the public half of the worker's key pair.
	Key string `json:"key,omitempty"`
	// Secret is the hash of what stood in the place of a key once; it goes when the worker has shown a key.
	Secret string `json:"secret,omitempty"`
	// Token is the id of the token that let it join; empty for the shared one.
	Token  string    `json:"token,omitempty"`
	Joined time.Time `json:"joined,omitzero"`
	// Removed is when it was shut out for good; zero while it may connect.
	Removed time.Time `json:"removed,omitzero"`
}

// openRoster reads the roster of a data directory; it is empty where nobody joined yet.
func openRoster(dir string, a *audit) (*Roster, error) {
	r := &Roster{audit: a}
	r.record = record[*rosterFile]{
		dir: dir, file: RosterFile, key: rosterKey, what: "which workers joined", parse: parseRoster, encode: indented[*rosterFile], heard: r.heardOf, log: a.log,
		now: &rosterFile{rosterSchema, map[functions.NodeID]*member{}, map[string]*JoinToken{}},
	}
	return r, r.load()
}

// indented encodes a record as JSON that people can read.
func indented[T any](v T) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	return append(data, '\n'), err
}

// heardOf ends the connections of workers that another server removed.
func (r *Roster) heardOf(old, now *rosterFile) {
	for node, m := range now.Workers {
		if before := old.Workers[node]; !m.Removed.IsZero() && before != nil && before.Removed.IsZero() {
			r.kick(node, m.Key)
		}
	}
}

func parseRoster(path string, data []byte) (*rosterFile, error) {
	bad := func() (*rosterFile, error) {
		return nil, fault.New(fault.CodeConflict, "%s cannot be read", path).
			WithHint("restore the file from a backup, or remove it: the workers that join then are bound anew")
	}
	f := &rosterFile{Tokens: map[string]*JoinToken{}}
	switch n := schemaOf(data); {
	case n > rosterSchema:
		return nil, newerRecord(path, n, rosterSchema)
	case n == rosterSchema:
		if err := json.Unmarshal(data, f); err != nil || f.Workers == nil {
			return bad()
		}
		for _, m := range f.Workers {
			if m == nil {
				return bad()
			}
		}
		for id, t := range f.Tokens {
			if t == nil || t.ID != id {
				return bad()
			}
		}
	case n == 1:
		var old struct {
			Workers map[functions.NodeID]string `json:"workers"`
		}
		if err := json.Unmarshal(data, &old); err != nil || old.Workers == nil {
			return bad()
		}
		f.Workers = map[functions.NodeID]*member{}
		for node, hash := range old.Workers {
			f.Workers[node] = &member{Secret: hash}
		}
	default:
		return bad()
	}
	f.Schema = rosterSchema
	return f, nil
}

// applicant is who wants to connect as a node's worker.
type applicant struct {
	node functions.NodeID
	// key is the public key that it has shown to be its own.
	key string
	// token is needed to join, secret only by a worker that was bound by one once.
	token, secret string
}

// joinTries is how often a worker is admitted anew where others join at other servers at the same time.
const joinTries = 10

// admit reports why somebody may not be the node's worker. The first one that may is bound to it, on disk.
func (r *Roster) admit(a applicant, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for try := 1; ; try++ {
		err := r.admitOnce(a, now)
		if !errors.Is(err, errMeanwhile) {
			return err
		}
		if try == joinTries {
			return fault.Wrap(fault.CodeUnavailable, err, "too many join at once")
		}
		if err := r.refresh(); err != nil {
			return err
		}
	}
}

// admitOnce is admit, by what the roster is now; r.mu is held.
func (r *Roster) admitOnce(a applicant, now time.Time) error {
	m := r.now.Workers[a.node]
	if m == nil {
		if err := r.refresh(); err != nil {
			return err
		}
		m = r.now.Workers[a.node]
	}
	switch {
	case a.key == "":
		return fault.New(fault.CodeDenied, "it shows no key of its own")
	case m == nil:
		return r.join(a, now)
	case !m.Removed.IsZero():
		return fault.New(fault.CodeDenied, "node %s was removed", a.node)
	case m.Key != "" && equal(m.Key, a.key):
		return nil
	case m.Key == "" && m.Secret != "" && equal(m.Secret, hashOf(a.secret)):
		return r.change(func() { m.Key, m.Secret = a.key, "" }, func() { m.Key, m.Secret = "", hashOf(a.secret) })
	}
	return fault.New(fault.CodeDenied, "another worker has joined as %s before", a.node)
}

// join binds a node to its first worker; r.mu is held.
func (r *Roster) join(a applicant, now time.Time) error {
	if len(r.now.Workers) >= mostWorkers {
		return fault.New(fault.CodeDenied, "%d workers have joined already", mostWorkers)
	}
	m := &member{Key: a.key, Joined: now.UTC()}
	t := r.tokenOf(a.token)
	switch {
	case slices.ContainsFunc(r.shared(), func(secret string) bool { return equal(a.token, secret) }):
	case t == nil:
		return fault.New(fault.CodeDenied, "the token is not known")
	default:
		if state := t.State(now); state != TokenUnused {
			return fault.New(fault.CodeDenied, "the token %s is %s", t.ID, state)
		}
		m.Token = t.ID
	}
	err := r.change(func() {
		if r.now.Workers[a.node] = m; m.Token != "" {
			t.Used, t.By = m.Joined, a.node
		}
	}, func() {
		if delete(r.now.Workers, a.node); m.Token != "" {
			t.Used, t.By = time.Time{}, ""
		}
	})
	if err == nil {
		r.audit.say("worker-joined", slogNode(a.node), "token", m.Token)
	}
	return err
}

// Remove shuts a node's worker out for good and ends its connections. It is no error where it is shut out already; not-found where nobody joined as it.
func (r *Roster) Remove(node functions.NodeID, why string) error {
	key, removed := "", false
	err := r.alter(func() (do, undo func(), err error) {
		m := r.now.Workers[node]
		if m == nil {
			return nil, nil, fault.New(fault.CodeNotFound, "no worker has joined as %s", node)
		}
		if key = m.Key; !m.Removed.IsZero() {
			return nil, nil, nil
		}
		removed = true
		return func() { m.Removed = time.Now().UTC() }, func() { m.Removed = time.Time{} }, nil
	})
	if err != nil {
		return err
	}
	if removed {
		r.audit.say("node-removed", slogNode(node), "reason", why)
	}
	r.kick(node, key)
	return nil
}

// Members lists the nodes whose workers may connect.
func (r *Roster) Members() []functions.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []functions.NodeID
	for _, node := range slices.Sorted(maps.Keys(r.now.Workers)) {
		if r.now.Workers[node].Removed.IsZero() {
			out = append(out, node)
		}
	}
	return out
}
