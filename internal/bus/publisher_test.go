package bus_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/bus"
)

// What was added is sent in its order, each message by itself; what cannot be encoded is left out alone.
func TestPublisherSendsWhatWasAdded(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	nc, err := b.Connect("listener")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	came := make(chan *nats.Msg, 10)
	if _, err := nc.ChanSubscribe("said.>", came); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	var p bus.Publisher
	for _, round := range []string{"first", "second"} {
		if err := p.Add("said.a", round); err != nil {
			t.Error(err)
		}
		if err := p.Add("said.bad", func() {}); err == nil {
			t.Error("a function was encoded")
		}
		if err := p.Add("said.b", []string{round}); err != nil {
			t.Error(err)
		}
		select {
		case m := <-came:
			t.Errorf("%s was sent before it was to be", m.Subject)
		default:
		}
		if err := p.Send(b.Conn()); err != nil {
			t.Error(err)
		}
		for _, want := range []string{"said.a \"" + round + "\"\n", "said.b [\"" + round + "\"]\n"} {
			select {
			case m := <-came:
				if got := m.Subject + " " + string(m.Data); got != want {
					t.Errorf("%q came, want %q", got, want)
				}
			case <-time.After(time.Minute):
				t.Fatal("nothing comes")
			}
		}
	}
}
