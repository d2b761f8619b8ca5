package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
)

// lone is a cluster in which one server wants to lead.
type lone struct {
	*trio
	key  jetstream.KeyValue
	puts <-chan jetstream.KeyValueEntry
}

func newLone(t *testing.T) *lone {
	t.Helper()
	l := &lone{trio: newTrio(t)}
	insistently(t, "watching who leads", func() (err error) {
		if l.key, err = l.buses[0].JetStream().KeyValue(t.Context(), bus.BucketLead); err != nil {
			return err
		}
		w, err := l.key.WatchAll(t.Context(), jetstream.UpdatesOnly())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = w.Stop() })
		l.puts = w.Updates()
		return nil
	})
	return l
}

// term is the time in which the server leads.
type term struct {
	ended, returned chan struct{}
	// byItself says that it ended before it was to.
	byItself bool
	leave    context.CancelFunc
}

// begin has the server lead, once, and returns what it puts first.
func (l *lone) begin() (*term, jetstream.KeyValueEntry) {
	l.t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	m := &term{ended: make(chan struct{}), returned: make(chan struct{}), leave: leave}
	go func() {
		defer close(m.returned)
		_ = l.buses[0].Lead(ctx, "", func(leads context.Context, _ uint64) error {
			<-leads.Done()
			m.byItself = ctx.Err() == nil
			close(m.ended)
			return errors.New("once is enough")
		})
	}()
	l.t.Cleanup(func() {
		leave()
		<-m.returned
	})
	return m, l.next()
}

// next is what is put next.
func (l *lone) next() jetstream.KeyValueEntry {
	l.t.Helper()
	for over := time.After(time.Minute); ; {
		select {
		case e := <-l.puts:
			if e != nil && e.Operation() == jetstream.KeyValuePut {
				return e
			}
		case <-over:
			l.t.Fatal("nobody says that it leads")
		}
	}
}

// Whoever leads says so again and again, each time for a while only; and when it leaves, nobody leads any more.
func TestALeadIsRenewedAndGivenBack(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for {
		m, _ := l.begin()
		renewed := l.next()
		var stored jetstream.Stream
		insistently(t, "opening what is stored", func() (err error) {
			stored, err = l.buses[0].JetStream().Stream(t.Context(), "KV_"+bus.BucketLead)
			return err
		})
		last, err := stored.GetLastMsgForSubject(t.Context(), "$KV."+bus.BucketLead+"."+renewed.Key())
		if err == nil && last.Header.Get(jetstream.MsgTTLHeader) == "" {
			t.Error("a server that vanishes would lead for ever")
		}
		m.leave()
		<-m.returned
		if m.byItself || err != nil {
			continue // the machine stood still
		}
		if e, err := l.key.Get(t.Context(), renewed.Key()); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("the server has left, and is told to lead: %+v, %v", e, err)
		}
		return
	}
}

// Whoever finds that another one leads does so no longer, and does not take the lead back.
func TestALeadThatIsLostEnds(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m, first := l.begin()
	other, err := json.Marshal(bus.Leader{Schema: bus.Schema, Server: "another", Boot: "another"})
	if err != nil {
		t.Fatal(err)
	}
	var taken uint64
	insistently(t, "taking the lead", func() (err error) {
		taken, err = l.key.Put(t.Context(), first.Key(), other)
		return err
	})
	for over := time.After(time.Minute); ; {
		select {
		case <-m.ended:
			return
		case e := <-l.puts:
			if e != nil && e.Revision() > taken {
				t.Fatalf("it says that it leads, although another one does: %s", e.Value())
			}
		case <-over:
			t.Fatal("it goes on leading")
		}
	}
}
