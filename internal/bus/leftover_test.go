package bus_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// In a cluster the parts that a killed server left go; those of an object that is written stay, and so does what is whole.
func TestPartsOfADeadWriterGo(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	whole := bytes.Repeat([]byte("whole"), 50_000)
	if _, err := c.buses[0].Artifacts().Put(t.Context(), "whole", bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a server that is killed here had not come to the object's name
		insistently(t, "writing a part", func() error {
			_, err := c.buses[0].JetStream().Publish(t.Context(), "$O."+bus.ObjectsArtifacts+".C.half", []byte("half"))
			return err
		})
	}
	between := time.Now()
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		_, err := c.buses[2].Artifacts().Put(t.Context(), "written", r)
		written <- err
	}()
	if _, err := w.Write(whole); err != nil {
		t.Fatal(err)
	}
	insistently(t, "clearing", func() error { return c.buses[1].ClearLeftoversBefore(t.Context(), between) })
	st, err := c.buses[0].JetStream().Stream(t.Context(), c.buses[0].Artifacts().Stream())
	if err != nil {
		t.Fatal(err)
	}
	// Another server than the one that removed them may answer.
	until(t, "what a killed server left is gone", func() bool {
		_, err := st.GetLastMsgForSubject(t.Context(), "$O."+bus.ObjectsArtifacts+".C.half")
		return errors.Is(err, jetstream.ErrMsgNotFound)
	})
	if _, err := w.Write(whole); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"whole": whole, "written": append(whole, whole...)} {
		obj, _, err := c.buses[1].Artifacts().Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(obj); err != nil || !bytes.Equal(data, want) {
			t.Errorf("%s has %d bytes, want %d; %v", name, len(data), len(want), err)
		}
		_ = obj.Close()
	}
}

// Nobody writes an object so slowly that its parts would be taken for left behind.
func TestASlowSenderIsRefused(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	b.Artifacts().SetPatience(time.Nanosecond)
	if _, err := b.Artifacts().Put(t.Context(), "slow", bytes.NewReader(make([]byte, 1<<20))); !fault.Is(err, fault.CodeInvalidRequest) {
		t.Errorf("got %v", err)
	}
	if n := messages(t, b, b.Artifacts()); n != 0 {
		t.Errorf("%d messages are left behind", n)
	}
}
