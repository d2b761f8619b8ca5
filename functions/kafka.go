package functions

import (
	"net"
	"path/filepath"
	"slices"

	"github.com/tatami-faas/tatami/internal/fault"
)

// KafkaSource takes the records of a topic in, as a member of a consumer group. The records of a partition are handed over in their order, run
// one after the other unless they are unordered, and are committed when their invocations are durable.
type KafkaSource struct {
	// Brokers are addresses HOST:PORT to begin with, 1 to 16.
	Brokers []string `json:"brokers"`
	Topic   string   `json:"topic"`
	// Group is the consumer group. Default tatami.NAMESPACE.TRIGGER.
	Group string `json:"group,omitempty"`
	// Start is where a group without commits begins: StartLatest, for which the empty one stands, or StartEarliest.
	Start string `json:"start,omitempty"`
	// Unordered lets the invocations of a partition run side by side, and so share batches: one that is tried again comes behind later ones.
	Unordered bool `json:"unordered,omitempty"`
	// TLS encrypts the connections; CA is a file on the server with the certificates to trust, default the system's.
	TLS bool   `json:"tls,omitempty"`
	CA  string `json:"ca,omitempty"`
	// SASL is how the server proves who it is; nil: it does not.
	SASL *KafkaSASL `json:"sasl,omitempty"`
}

// KafkaSASL is a user with a password.
type KafkaSASL struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512.
	Mechanism string    `json:"mechanism"`
	User      string    `json:"user"`
	Password  SecretRef `json:"password"`
}

// Where a group without commits begins.
const (
	StartLatest   = "latest"
	StartEarliest = "earliest"
)

// The mechanisms of KafkaSASL.
const (
	SASLPlain       = "plain"
	SASLScramSHA256 = "scram-sha-256"
	SASLScramSHA512 = "scram-sha-512"
)

const (
	maxBrokers   = 16
	maxKafkaName = 249
)

func (k *KafkaSource) problem() *fault.Error {
	if len(k.Brokers) == 0 || len(k.Brokers) > maxBrokers {
		return badTrigger("kafka.brokers", "name 1 to %d", maxBrokers)
	}
	for _, b := range k.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			return badTrigger("kafka.brokers", "%.80q is no address such as kafka:9092", b)
		}
	}
	switch {
	case !isKafkaName(k.Topic):
		return badTrigger("kafka.topic", "%.80q is no name of a topic", k.Topic)
	case k.Group != "" && !isKafkaName(k.Group):
		return badTrigger("kafka.group", "%.80q is no name of a group", k.Group)
	case !slices.Contains([]string{"", StartLatest, StartEarliest}, k.Start):
		return badTrigger("kafka.start", "%.40q is neither %s nor %s", k.Start, StartLatest, StartEarliest)
	case k.CA != "" && (!k.TLS || !filepath.IsAbs(k.CA)):
		return badTrigger("kafka.ca", "it is an absolute path, and needs tls")
	case k.SASL == nil:
		return nil
	case !slices.Contains([]string{SASLPlain, SASLScramSHA256, SASLScramSHA512}, k.SASL.Mechanism):
		return badTrigger("kafka.sasl.mechanism", "%.40q is none of %s, %s and %s", k.SASL.Mechanism, SASLPlain, SASLScramSHA256, SASLScramSHA512)
	case k.SASL.User == "" || len(k.SASL.User) > 255:
		return badTrigger("kafka.sasl.user", "it has 1 to 255 characters")
	}
	return k.SASL.Password.problem("kafka.sasl.password")
}

func isKafkaName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && s != "." && s != ".." && len(s) <= maxKafkaName
}
