package functions

import (
	"net/url"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Destination is where the record of an invocation goes when it has ended. One of URL, Function and Subject is set, or none: nowhere.
type Destination struct {
	// URL takes the record with POST. It is of http or https, without a user and without a fragment.
	URL string `json:"url,omitempty"`
	// Secret signs what goes to URL; empty: it is not signed.
	Secret SecretRef `json:"secret,omitzero"`
	// Function is invoked with the record through its queue. It is one of the same namespace, by its name.
	Function string `json:"function,omitempty"`
	// Subject is where the record is published on the server's NATS, behind a prefix with the namespace; words of letters, digits, '-' and '_'.
	Subject string `json:"subject,omitempty"`
}

// The ends of an invocation that may have a destination.
const (
	// EndSuccess is that it succeeded.
	EndSuccess = "success"
	// EndFailure is that it is dead or expired. One that was cancelled has no destination.
	EndFailure = "failure"
)

// MaxHops is how many destinations in a row lead from one invocation to another at most.
const MaxHops = 16

// The longest URL and the longest subject of a destination, in bytes.
const (
	maxURL     = 2048
	maxSubject = 200
)

// IsZero reports whether nothing is set.
func (d Destination) IsZero() bool { return d == Destination{} }

// problem returns what is wrong with the destination, which stands at a field; nil for none and for a good one.
func (d Destination) problem(at string) *fault.Error {
	if d.IsZero() {
		return nil
	}
	set := 0
	for _, s := range []string{d.URL, d.Function, d.Subject} {
		if s != "" {
			set++
		}
	}
	bad := func(field, format string, args ...any) *fault.Error {
		return badTrigger(strings.TrimSuffix(at+"."+field, "."), format, args...)
	}
	switch {
	case set != 1:
		return bad("", "set one of url, function and subject")
	case d.Function != "" && !isName(d.Function):
		return bad("function", "%.80q is no function's name; it is one of the same namespace", d.Function)
	case d.Subject != "" && !isSubject(d.Subject):
		return bad("subject", "%.80q is no subject: words of letters, digits, '-' and '_' with dots between them, at most %d bytes", d.Subject, maxSubject)
	case d.Secret != SecretRef{} && d.URL == "":
		return bad("secret", "only what goes to a url is signed")
	case d.URL == "":
		return nil
	}
	u, err := url.Parse(d.URL)
	if err != nil || len(d.URL) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return bad("url", "it is no URL of http or https with a host, without user and fragment, of at most %d bytes", maxURL)
	}
	if d.Secret == (SecretRef{}) {
		return nil
	}
	return d.Secret.problem(at + ".secret")
}

func isSubject(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" {
			return false
		}
		for i := range len(word) {
			c := word[i]
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return len(s) <= maxSubject
}

// Deliveries is the name of the queue of what goes from the function to its destination at an end: NAME@END. It is no function's name.
func (r Ref) Deliveries(end string) Ref { return Ref{Namespace: r.Namespace, Name: r.Name + "@" + end} }

// Delivers splits the name of a queue of deliveries; false where it is none.
func (r Ref) Delivers() (of Ref, end string, ok bool) {
	name, end, ok := strings.Cut(r.Name, "@")
	return Ref{Namespace: r.Namespace, Name: name}, end, ok
}

// ParseQueue reads the name of a queue: a function's, or NAME@success, NAME@failure or NAME@callback with or without a namespace.
func ParseQueue(s string) (Ref, error) {
	name, rest, delivers := strings.Cut(s, "@")
	if !delivers {
		return ParseRef(s)
	}
	end, namespace, dotted := strings.Cut(rest, ".")
	if dotted {
		name += "." + namespace
	}
	of, err := ParseRef(name)
	if err != nil {
		return Ref{}, err
	}
	return of.Deliveries(end), checkEnd(end)
}

// ValidateQueue is Validate for the name of a queue.
func (r Ref) ValidateQueue() error {
	of, end, ok := r.Delivers()
	if !ok {
		return r.Validate()
	}
	if err := of.Validate(); err != nil {
		return err
	}
	return checkEnd(end)
}

func checkEnd(end string) error {
	if end == EndSuccess || end == EndFailure || end == EndCallback {
		return nil
	}
	return fault.New(fault.CodeInvalidRequest, "%.40q is no end with deliveries", end).WithField("function").
		WithHint("a function's deliveries are NAME@%s, NAME@%s and NAME@%s", EndSuccess, EndFailure, EndCallback)
}

// DeliveryID is the id of what goes to a destination when an invocation has ended. It is the same whenever it is asked for.
func DeliveryID(to Ref, of InvocationID) InvocationID {
	return InvocationID("inv_" + to.Hash() + digest(randomChars, "delivery", to.Namespace, to.Name, string(of)))
}
