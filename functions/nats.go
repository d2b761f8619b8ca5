package functions

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// NATSSource takes the messages of an external NATS server in: those of a subject, as a member of a queue group, or those of a JetStream stream
// through a durable consumer, which are acknowledged when their invocations are durable. What is published on a subject while nobody listens
// is lost: only a stream keeps it.
type NATSSource struct {
	// Servers are URLs such as nats://nats:4222, without a user, 1 to 16.
	Servers []string `json:"servers"`
	// Subject is what to listen on, wildcards allowed; of a stream those of its messages that are wanted, default all.
	Subject string `json:"subject,omitempty"`
	// Stream is the name of a stream; empty: the subject itself.
	Stream string `json:"stream,omitempty"`
	// Group is the queue group, or the name of the durable consumer. Default tatami_NAMESPACE_TRIGGER.
	Group string `json:"group,omitempty"`
	// Start is where a consumer of a stream begins that is made anew: StartLatest, for which the empty one stands, or StartEarliest.
	Start string `json:"start,omitempty"`
	// TLS encrypts the connections; CA is a file on the server with the certificates to trust, default the system's.
	TLS bool   `json:"tls,omitempty"`
	CA  string `json:"ca,omitempty"`
	// Credentials is a file on the server with a user's JWT and key, as NATS's tools make it. User and Password are the other way; none: nobody
	// in particular.
	Credentials string    `json:"credentials,omitempty"`
	User        string    `json:"user,omitempty"`
	Password    SecretRef `json:"password,omitzero"`
}

const (
	maxServers     = 16
	maxNATSName    = 128
	maxNATSSubject = 512
)

func (n *NATSSource) problem() *fault.Error {
	if len(n.Servers) == 0 || len(n.Servers) > maxServers {
		return badTrigger("nats.servers", "name 1 to %d", maxServers)
	}
	for _, s := range n.Servers {
		u, err := url.Parse(s)
		if err != nil || !slices.Contains([]string{"nats", "tls"}, u.Scheme) || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return badTrigger("nats.servers", "%.80q is no URL such as nats://nats:4222", s)
		}
		if u.User != nil {
			return badTrigger("nats.servers", "a URL must not hold a user").WithHint("set user and password, or credentials")
		}
	}
	switch {
	case n.Stream == "" && n.Subject == "":
		return badTrigger("nats.subject", "neither a subject nor a stream is named")
	case n.Subject != "" && !isNATSSubject(n.Subject):
		return badTrigger("nats.subject", "%.80q is no subject", n.Subject)
	case n.Stream != "" && !isNATSName(n.Stream):
		return badTrigger("nats.stream", "%.80q is no name of a stream", n.Stream)
	case n.Group != "" && !isNATSName(n.Group):
		return badTrigger("nats.group", "%.80q is no name of a group", n.Group)
	case !slices.Contains([]string{"", StartLatest, StartEarliest}, n.Start):
		return badTrigger("nats.start", "%.40q is neither %s nor %s", n.Start, StartLatest, StartEarliest)
	case n.Start != "" && n.Stream == "":
		return badTrigger("nats.start", "only a stream has a beginning").WithHint("name the stream, or leave start out")
	case n.CA != "" && (!n.TLS || !filepath.IsAbs(n.CA)):
		return badTrigger("nats.ca", "it is an absolute path, and needs tls")
	case n.Credentials != "" && !filepath.IsAbs(n.Credentials):
		return badTrigger("nats.credentials", "%.80q is no absolute path", n.Credentials)
	case n.Credentials != "" && (n.User != "" || n.Password != (SecretRef{})):
		return badTrigger("nats.user", "there are credentials already")
	case n.User == "" && n.Password != (SecretRef{}):
		return badTrigger("nats.user", "a password needs a user")
	case len(n.User) > 255:
		return badTrigger("nats.user", "it has at most 255 characters")
	case n.User == "":
		return nil
	}
	return n.Password.problem("nats.password")
}

// isNATSName reports whether s can name a stream, a consumer or a group.
func isNATSName(s string) bool {
	return s != "" && len(s) <= maxNATSName && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`.*>/\`, r)
	})
}

// isNATSSubject reports whether s is a subject, wildcards allowed.
func isNATSSubject(s string) bool {
	if len(s) > maxNATSSubject {
		return false
	}
	tokens := strings.Split(s, ".")
	for i, t := range tokens {
		switch {
		case t == "*", t == ">" && i == len(tokens)-1:
		case t == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' || r == '>' }):
			return false
		}
	}
	return true
}
