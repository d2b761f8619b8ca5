package functions

import (
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Pinned is the name under which a revision of the function runs that is not its live one: NAME=REVISION. It is no function's name, and nobody
// calls it: what is redriven or replayed against a revision runs there.
func (r Ref) Pinned(rev RevisionID) Ref {
	return Ref{Namespace: r.Namespace, Name: r.Name + "=" + string(rev)}
}

// PinnedTo splits the name of a pinned revision; false where it is none.
func (r Ref) PinnedTo() (of Ref, rev RevisionID, ok bool) {
	name, id, ok := strings.Cut(r.Name, "=")
	return Ref{Namespace: r.Namespace, Name: name}, RevisionID(id), ok
}

// ValidateRunning is Validate for the name under which instances run: a function's, or a pinned revision's.
func (r Ref) ValidateRunning() error {
	of, rev, pinned := r.PinnedTo()
	if pinned && !rev.Valid() {
		return fault.New(fault.CodeInvalidRequest, "%.40q is no revision's id", string(rev)).WithField("function")
	}
	return of.Validate()
}
