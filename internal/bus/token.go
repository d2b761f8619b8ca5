package bus

import (
	"crypto/sha256"
	"encoding/hex"
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

func (t *JoinToken) made() (time.Time, string) { return t.Created, t.ID }

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
	if err := functions.ValidateNodeName("node", node); err != nil {
		return JoinToken{}, "", err
	}
	if life < time.Minute || life > maxTokenLife {
		return JoinToken{}, "", fault.New(fault.CodeInvalidRequest, "expires: %s is not between 1m and %s", life, functions.Duration(maxTokenLife)).WithField("expires")
	}
	now := time.Now().UTC()
	text := newSecret()
	t := &JoinToken{ID: newTokenID(), Node: node, Hash: hashOf(text), Created: now, Expires: now.Add(life)}
	err := r.alter(func() (do, undo func(), err error) {
		useless := func(t *JoinToken) bool { return t.State(now) == TokenExpired || t.State(now) == TokenRevoked }
		if !makeRoom(r.now.Tokens, mostTokens, useless) {
			return nil, nil, fault.New(fault.CodeConflict, "there are %d tokens already", mostTokens).WithHint("revoke some: tatami token ls")
		}
		return func() { r.now.Tokens[t.ID] = t }, func() { delete(r.now.Tokens, t.ID) }, nil
	})
	if err != nil {
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
	return copies(byAge(r.now.Tokens))
}

// RevokeToken ends a token, and shuts out the worker that joined with it.
func (r *Roster) RevokeToken(id string) (out JoinToken, err error) {
	revoked := false
	err = r.alter(func() (do, undo func(), err error) {
		t := r.now.Tokens[id]
		if t == nil {
			return nil, nil, fault.New(fault.CodeNotFound, "there is no token %.40q", id).WithHint("tatami token ls")
		}
		if out = *t; !t.Revoked.IsZero() {
			return nil, nil, nil
		}
		revoked = true
		return func() { t.Revoked = time.Now().UTC(); out = *t }, func() { t.Revoked = time.Time{} }, nil
	})
	if err != nil {
		return JoinToken{}, err
	}
	if revoked {
		r.audit.say("token-revoked", "token", id, "for", out.Node)
	}
	if out.By != "" {
		err = r.Remove(out.By, "its token "+id+" was revoked")
	}
	return out, err
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
