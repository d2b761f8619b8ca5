package bus

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// JoinToken lets one worker join, once. The token itself is told when it is made, and not kept.
type JoinToken struct {
	ID string `json:"id"`
	// Node is whose worker it is for, in the operator's words.
	Node string `json:"node"`
	// Hash is that of the token's secret.
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Used is when a worker joined with it, By as which node.
	Used    time.Time        `json:"used,omitzero"`
	By      functions.NodeID `json:"by,omitempty"`
	Revoked time.Time        `json:"revoked,omitzero"`
}

// States of tokens.
const (
	TokenUnused  = "unused"
	TokenUsed    = "used"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// State is what the token is good for at a time: a worker may join with an unused one only.
func (t *JoinToken) State(now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return TokenRevoked
	case !t.Used.IsZero():
		return TokenUsed
	case !now.Before(t.Expires):
		return TokenExpired
	}
	return TokenUnused
}

const (
	// mostTokens bounds the tokens; of those that are good for nothing any more the oldest go first.
	mostTokens = 2 * mostWorkers
	// maxTokenLife bounds how long a token may wait for its worker.
	maxTokenLife = 30 * 24 * time.Hour
)

// CreateToken makes a token with which one worker may join within the time; it returns the token beside its record.
func (r *Roster) CreateToken(node string, life time.Duration) (JoinToken, string, error) {
	if err := functions.CheckNodeLabel("node", node); err != nil || node == "" || len(node) > functions.MaxName {
		return JoinToken{}, "", fault.New(fault.CodeInvalidRequest, "node: %.80q is no name of a node: 1 to %d bytes without control characters", node, functions.MaxName).WithField("node")
	}
	if life < time.Minute || life > maxTokenLife {
		return JoinToken{}, "", fault.New(fault.CodeInvalidRequest, "expires: %s is not between 1m and %s", life, functions.Duration(maxTokenLife)).WithField("expires")
	}
	now := time.Now().UTC()
	text := newSecret()
	t := &JoinToken{ID: newTokenID(), Node: node, Hash: hashOf(text), Created: now, Expires: now.Add(life)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refresh(); err != nil {
		return JoinToken{}, "", err
	}
	if err := r.roomForToken(now); err != nil {
		return JoinToken{}, "", err
	}
	if err := r.change(func() { r.now.Tokens[t.ID] = t }, func() { delete(r.now.Tokens, t.ID) }); err != nil {
		return JoinToken{}, "", err
	}
	r.audit.say("token-created", "token", t.ID, "for", node)
	return *t, tokenText(text, r.pin()), nil
}

// tokenText is a token as workers are given it: the secret, and the pin of the authority by which they know the server.
func tokenText(secret, pin string) string { return secret + "." + pin }

// splitToken takes a token apart; pin is empty in one of the time before there were certificates.
func splitToken(token string) (secret, pin string) {
	secret, pin, _ = strings.Cut(token, ".")
	return secret, pin
}

// roomForToken lets go of the oldest token that is good for nothing where there are too many; r.mu is held.
func (r *Roster) roomForToken(now time.Time) error {
	if len(r.now.Tokens) < mostTokens {
		return nil
	}
	for _, t := range r.tokens() {
		if s := t.State(now); s == TokenExpired || s == TokenRevoked {
			delete(r.now.Tokens, t.ID)
			return nil
		}
	}
	return fault.New(fault.CodeConflict, "there are %d tokens already", mostTokens).WithHint("revoke some: tatami token ls")
}

// tokens lists the tokens, the oldest first; r.mu is held.
func (r *Roster) tokens() []*JoinToken {
	return slices.SortedFunc(maps.Values(r.now.Tokens), func(a, b *JoinToken) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// tokenOf finds a token by its text; nil where there is none. r.mu is held.
func (r *Roster) tokenOf(text string) *JoinToken {
	hash := hashOf(text)
	for _, t := range r.now.Tokens {
		if equal(t.Hash, hash) {
			return t
		}
	}
	return nil
}

// Tokens lists the tokens, the oldest first.
func (r *Roster) Tokens() []JoinToken {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []JoinToken
	for _, t := range r.tokens() {
		out = append(out, *t)
	}
	return out
}

// RevokeToken ends a token, and shuts out the worker that joined with it.
func (r *Roster) RevokeToken(id string) (JoinToken, error) {
	r.mu.Lock()
	if err := r.refresh(); err != nil {
		r.mu.Unlock()
		return JoinToken{}, err
	}
	t := r.now.Tokens[id]
	if t == nil {
		r.mu.Unlock()
		return JoinToken{}, fault.New(fault.CodeNotFound, "there is no token %.40q", id).WithHint("tatami token ls")
	}
	var err error
	if t.Revoked.IsZero() {
		err = r.change(func() { t.Revoked = time.Now().UTC() }, func() { t.Revoked = time.Time{} })
		if err == nil {
			r.audit.say("token-revoked", "token", t.ID, "for", t.Node)
		}
	}
	out := *t
	r.mu.Unlock()
	if err == nil && out.By != "" {
		err = r.Remove(out.By, "its token "+id+" was revoked")
	}
	return out, err
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
