package kafka

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/secret"
	"github.com/tatami-faas/tatami/gateway/trigger/source"
)

// options are those of a client that commits nothing by itself and holds its partitions while records are in hand.
func options(t *functions.Trigger) ([]kgo.Opt, error) {
	k := t.Kafka
	start := kgo.NewOffset().AtEnd()
	if k.Start == functions.StartEarliest {
		start = kgo.NewOffset().AtStart()
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...), kgo.ClientID("tatami"), kgo.ConsumeTopics(k.Topic), kgo.ConsumerGroup(groupOf(t)), kgo.ConsumeResetOffset(start),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxBytes(fetchBytes), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}
	if k.TLS {
		cfg, err := source.TLS(k.CA, "kafka.ca")
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(cfg))
	}
	if k.SASL != nil {
		m, err := mechanism(k.SASL)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func mechanism(s *functions.KafkaSASL) (sasl.Mechanism, error) {
	secrets, err := secret.Read(s.Password)
	if err != nil {
		return nil, err
	}
	password := string(secrets[0])
	switch s.Mechanism {
	case functions.SASLScramSHA256:
		return scram.Auth{User: s.User, Pass: password}.AsSha256Mechanism(), nil
	case functions.SASLScramSHA512:
		return scram.Auth{User: s.User, Pass: password}.AsSha512Mechanism(), nil
	}
	return plain.Auth{User: s.User, Pass: password}.AsMechanism(), nil
}
