package functions

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"strings"
)

// Identifiers are a prefix and base32 in lower case (RFC 4648 alphabet, no padding), except RevisionID, which is a hash of content.
type (
	// InvocationID is `inv_`, the function's hash (see Ref.Hash) and 26 random characters. Knowing it is the right to the result.
	InvocationID string
	// InstanceID is `ins_` and 26 random characters.
	InstanceID string
	// NodeID is `nod_` and 26 random characters.
	NodeID string
	// RevisionID is `rev_` and 16 characters of a hash of the revision's content.
	RevisionID string
)

const (
	randomChars = 26
	hashChars   = 10
	// revisionChars of a hash are 80 bits.
	revisionChars = 16
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func random() string {
	var b [16]byte
	// crypto/rand.Read never fails: the runtime ends the program where the system has no randomness.
	_, _ = rand.Read(b[:])
	return encoding.EncodeToString(b[:])
}

func digest(chars int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return encoding.EncodeToString(h.Sum(nil))[:chars]
}

// Hash is the part of the function's name that its invocations' ids and queue subjects carry: 10 characters, 50 bits. Two functions
// with one hash share a queue consumer and nothing else: every invocation names its function.
func (r Ref) Hash() string { return digest(hashChars, r.Namespace, r.Name) }

// NewInvocationID makes an id for an invocation of the function.
func NewInvocationID(r Ref) InvocationID { return InvocationID("inv_" + r.Hash() + random()) }

// NewInstanceID makes an id for an instance.
func NewInstanceID() InstanceID { return InstanceID("ins_" + random()) }

// NewNodeID makes an id for a node.
func NewNodeID() NodeID { return NodeID("nod_" + random()) }

// FunctionHash returns the hash of the function that the id carries; false where id is no invocation's id.
func (id InvocationID) FunctionHash() (string, bool) {
	s, ok := strings.CutPrefix(string(id), "inv_")
	if !ok || len(s) != hashChars+randomChars || !isBase32(s) {
		return "", false
	}
	return s[:hashChars], true
}

// Valid reports whether the id has the form of a revision's id.
func (id RevisionID) Valid() bool {
	s, ok := strings.CutPrefix(string(id), "rev_")
	return ok && len(s) == revisionChars && isBase32(s)
}

// Valid reports whether the id has the form of an instance's id.
func (id InstanceID) Valid() bool {
	s, ok := strings.CutPrefix(string(id), "ins_")
	return ok && len(s) == randomChars && isBase32(s)
}

// Valid reports whether the id has the form of a node's id.
func (id NodeID) Valid() bool {
	s, ok := strings.CutPrefix(string(id), "nod_")
	return ok && len(s) == randomChars && isBase32(s)
}

func isBase32(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// RevisionIDOf derives the id of a revision from its content: the same function, artifact and configuration give the same id.
func RevisionIDOf(ref Ref, a Artifact, c Config) (RevisionID, error) {
	content, err := json.Marshal(struct {
		Ref      Ref
		Artifact string
		Config   Config
	}{ref, a.Digest, c})
	if err != nil {
		return "", err
	}
	return RevisionID("rev_" + digest(revisionChars, string(content))), nil
}
