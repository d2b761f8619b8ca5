package functions

import (
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// DefaultNamespace is the namespace of a name written without one.
const DefaultNamespace = "default"

// MaxName is the longest name of a function or a namespace, in bytes.
const MaxName = 63

// Ref names a function: a name within a namespace.
type Ref struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ParseRef reads `name` or `name.namespace`. Both parts must be names; see ValidateName.
func ParseRef(s string) (Ref, error) {
	name, ns, dotted := strings.Cut(s, ".")
	if !dotted {
		ns = DefaultNamespace
	}
	if err := ValidateName("function", name); err != nil {
		return Ref{}, err
	}
	if err := ValidateName("namespace", ns); err != nil {
		return Ref{}, err
	}
	return Ref{Namespace: ns, Name: name}, nil
}

// String writes the reference the way ParseRef reads it: the default namespace is left out.
func (r Ref) String() string {
	if r.Namespace == "" || r.Namespace == DefaultNamespace {
		return r.Name
	}
	return r.Name + "." + r.Namespace
}

// Validate reports whether both parts are names.
func (r Ref) Validate() error {
	if err := ValidateName("function", r.Name); err != nil {
		return err
	}
	return ValidateName("namespace", r.Namespace)
}

// ValidateName reports whether s matches [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?. Field names the input in the error.
func ValidateName(field, s string) error {
	if isName(s) {
		return nil
	}
	shown := s
	if len(shown) > 80 {
		shown = shown[:80] + "…"
	}
	return fault.New(fault.CodeInvalidRequest, "%s name %q is not valid", field, shown).WithField(field).
		WithHint("use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit")
}

// maxNodeName is the longest name of a node, in bytes: that of a host.
const maxNodeName = 253

// ValidateNodeName reports whether s can be a node's name: host names can, full ones too, in small and capital letters. Field names the input in the error.
func ValidateNodeName(field, s string) error {
	if isNodeName(s) {
		return nil
	}
	shown := s
	if len(shown) > 80 {
		shown = shown[:80] + "…"
	}
	return fault.New(fault.CodeInvalidRequest, "%s: %q is no name of a node", field, shown).WithField(field).
		WithHint("use 1 to %d letters, digits, '-', '_' and '.', beginning and ending with a letter or a digit", maxNodeName)
}

func isNodeName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' && c != '_' && c != '.' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxNodeName
}

func isName(s string) bool {
	if len(s) == 0 || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}
