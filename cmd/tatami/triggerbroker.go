package main

import (
	"reflect"

	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/functions"
)

// brokers is what the flags of `tatami trigger add` say of NATS and of Kafka. What both have is in shared.
type brokers struct {
	nats      functions.NATSSource
	kafka     functions.KafkaSource
	mechanism string
	shared    struct {
		group, start, ca, user string
		tls                    bool
	}
}

func (b *brokers) register(f *pflag.FlagSet) {
	f.StringSliceVar(&b.nats.Servers, "nats", nil, "take messages of this NATS server in, such as nats://nats:4222")
	f.StringVar(&b.nats.Subject, "subject", "", "the messages' subject; of a stream the default is all")
	f.StringVar(&b.nats.Stream, "stream", "", "take them from this JetStream stream, acknowledged when they are durable")
	f.StringVar(&b.nats.Credentials, "creds", "", "file on the server with the NATS user's credentials")
	f.StringSliceVar(&b.kafka.Brokers, "kafka", nil, "take records of these Kafka brokers in, such as kafka:9092")
	f.StringVar(&b.kafka.Topic, "topic", "", "the records' topic, committed when they are durable")
	f.BoolVar(&b.kafka.Unordered, "unordered", false, "run the records of a partition side by side, so that they share batches")
	f.StringVar(&b.mechanism, "sasl", "", "how the server proves who it is to Kafka: plain, scram-sha-256 or scram-sha-512, with --user")
	f.StringVar(&b.shared.group, "group", "", "queue group, durable consumer or consumer group (default from the trigger's name)")
	f.StringVar(&b.shared.start, "start", "", "where a consumer or group begins that is made anew: latest or earliest (default latest)")
	f.BoolVar(&b.shared.tls, "tls", false, "encrypt the connection to NATS or Kafka")
	f.StringVar(&b.shared.ca, "ca", "", "file on the server with the certificates to trust (default the system's)")
	f.StringVar(&b.shared.user, "user", "", "name of the user at NATS or Kafka, with --secret-file or --secret-env")
}

// set sets the source that the flags name, whose password is the secret; used says that there is one.
func (b *brokers) set(t *functions.Trigger, secret functions.SecretRef) (used bool) {
	if k := t.Kafka; k != nil && len(b.kafka.Brokers) == 0 {
		// What the file says, otherwise.
		k.Unordered = k.Unordered || b.kafka.Unordered
		b.kafka.Unordered = false
	}
	kafka := b.mechanism != "" || !reflect.DeepEqual(b.kafka, functions.KafkaSource{})
	if kafka {
		k, s := &b.kafka, &b.shared
		k.Group, k.Start, k.TLS, k.CA = s.group, s.start, s.tls, s.ca
		if b.mechanism != "" || s.user != "" {
			k.SASL = &functions.KafkaSASL{Mechanism: b.mechanism, User: s.user, Password: secret}
			used = true
		}
		t.Kafka = k
	}
	n := &b.nats
	if kafka && reflect.DeepEqual(*n, functions.NATSSource{}) {
		return used
	}
	n.Group, n.Start, n.TLS, n.CA, n.User = b.shared.group, b.shared.start, b.shared.tls, b.shared.ca, b.shared.user
	if reflect.DeepEqual(*n, functions.NATSSource{}) {
		return used
	}
	n.Password = secret
	t.NATS = n
	return true
}
