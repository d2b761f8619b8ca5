package bus

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tatami-faas/tatami/tests/beside"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) {
	// Those with three servers mostly wait for elections.
	beside.Run(6)
	// What the libraries leave behind: the client, where it starts this goroutine while its connection closes; the server, where it opens a file of its
	// own or makes a stream while it stops, with the clock that all share.
	leaks.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}
