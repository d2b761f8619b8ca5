package bus

import (
	"flag"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/tatami-faas/tatami/tests/leaks"
)

// atOnce is how many tests run beside each other where there are fewer processors: those with three servers mostly wait for elections.
const atOnce = 8

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if n, err := strconv.Atoi(f.DefValue); err == nil && n < atOnce {
			_ = f.Value.Set(strconv.Itoa(atOnce))
		}
	}
	// What the libraries leave behind: the client, where it starts this goroutine while its connection closes; the server, where it opens a file of its
	// own or makes a stream while it stops, with the clock that all share.
	leaks.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}
