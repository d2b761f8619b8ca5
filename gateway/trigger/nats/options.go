package nats

import (
	"log/slog"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/secret"
	"github.com/tatami-faas/tatami/gateway/trigger/source"
	"github.com/tatami-faas/tatami/internal/fault"
)

// dialTime bounds the making of a connection.
const dialTime = 5 * time.Second

// connect makes a connection that comes back by itself when it breaks.
func connect(t *functions.Trigger, log *slog.Logger) (*client.Conn, error) {
	n := t.NATS
	opts := []client.Option{
		client.Name("tatami trigger " + t.ID().String()), client.Timeout(dialTime), client.MaxReconnects(-1),
		client.DisconnectErrHandler(func(_ *client.Conn, err error) {
			if err != nil {
				log.Warn("the connection to the NATS server broke", "trigger", t.ID().String(), "err", err)
			}
		}),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
			log.Warn("messages of the NATS server may be lost", "trigger", t.ID().String(), "err", err)
		}),
	}
	if n.TLS {
		cfg, err := source.TLS(n.CA, "nats.ca")
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.Secure(cfg))
	}
	switch {
	case n.Credentials != "":
		opts = append(opts, client.UserCredentials(n.Credentials))
	case n.User != "":
		secrets, err := secret.Read(n.Password)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.UserInfo(n.User, string(secrets[0])))
	}
	nc, err := client.Connect(strings.Join(n.Servers, ","), opts...)
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "connecting to %s", strings.Join(n.Servers, ", "))
	}
	return nc, nil
}

// groupOf is the queue group, or the consumer, of a trigger.
func groupOf(t *functions.Trigger) string {
	if t.NATS.Group != "" {
		return t.NATS.Group
	}
	return "tatami_" + t.Namespace + "_" + t.Name
}
