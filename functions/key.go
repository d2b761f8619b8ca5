package functions

import (
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// MaxKey is the largest idempotency key, in bytes.
const MaxKey = 1024

// CheckKey refuses an idempotency key that is longer than MaxKey or holds a control character; field names it.
func CheckKey(field, key string) error {
	if key == "" || len(key) > MaxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.CodeInvalidRequest, "%s: a key has 1 to %d bytes and no control characters", field, MaxKey).WithField(field)
	}
	return nil
}

// KeyState is how far the invocation under an idempotency key has come.
type KeyState string

// The states of a key. Those of a queued invocation are the first two, those of a synchronous one the others.
const (
	// KeyPending: the invocation may be in the queue or not.
	KeyPending KeyState = "pending"
	// KeyAccepted: it is, or was, in the queue.
	KeyAccepted KeyState = "accepted"
	// KeyRunning: the function may have begun; what it answers is not known yet.
	KeyRunning KeyState = "running"
	// KeyAnswered: the answer is kept.
	KeyAnswered KeyState = "answered"
	// KeyUnknown: the function may have begun, and what it answers nobody will know.
	KeyUnknown KeyState = "unknown"
)

// KeyRecord is what an idempotency key stands for, kept for at least as long as the function's invocations may wait.
type KeyRecord struct {
	Schema    int          `json:"schema"`
	ID        InvocationID `json:"id"`
	Namespace string       `json:"namespace"`
	Function  string       `json:"function"`
	// Request is a hash of what was asked for: another request under the key is refused.
	Request string    `json:"request"`
	State   KeyState  `json:"state"`
	Created time.Time `json:"created"`
	// Until is when the record may be forgotten.
	Until time.Time `json:"until"`
	// Invocation is what is to be stored, while the state is KeyPending: whoever finds it missing in the queue stores it.
	Invocation *Invocation `json:"invocation,omitempty"`
	// Status, Header and Body are the answer where the state is KeyAnswered.
	Status int                 `json:"status,omitempty"`
	Header map[string][]string `json:"header,omitempty"`
	Body   []byte              `json:"body,omitempty"`
	// BodyRef is set, and Body is empty, when the answer's body is in the object store.
	BodyRef *BodyRef `json:"bodyRef,omitempty"`
}

// Queued reports whether the key belongs to a queued invocation.
func (k *KeyRecord) Queued() bool { return k.State == KeyPending || k.State == KeyAccepted }
