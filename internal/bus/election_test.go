package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// disturb has one server after the other lead a stream, and the store as a whole, until the test's end: each does so once it is led again.
func (c *trio) disturb(stream string) {
	ctx, stop := context.WithCancel(context.Background())
	var elections sync.WaitGroup
	elections.Go(func() {
		for ctx.Err() == nil {
			for _, b := range c.buses {
				if b.StepDown(ctx, stream) {
					_ = b.Await(ctx, stream)
				}
			}
		}
	})
	c.t.Cleanup(func() { stop(); elections.Wait() })
}

// chopped yields its content little by little, so that elections come in between.
type chopped struct{ r io.Reader }

func (c chopped) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), 50_000)]) }

// Objects are written, read, listed and removed while one election follows the other, and a worker gets its blobs.
func TestObjectsThroughElections(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	content := make([]byte, 2_000_001)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	desks, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stop()
	for _, b := range c.buses {
		serving.Go(func() {
			if err := bus.NewDesk(b, discard()).Run(desks); err != nil {
				t.Error(err)
			}
		})
	}
	link := join(t, bus.JoinConfig{URL: c.buses[1].ListenURL(), Token: sharedToken(t, c.buses[0])})
	runLink(t, link)
	c.disturb(c.buses[0].Artifacts().Stream())
	same := func(what string, r io.ReadCloser, _ int64, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		defer r.Close()
		if got, err := io.ReadAll(chopped{r}); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d of %d bytes, which are right: %v; %v", what, len(got), len(content), bytes.HasPrefix(content, got), err)
		}
	}
	for i := range 3 {
		digest := fmt.Sprintf("sha256:%064x", i)
		name := bus.ArtifactObject(digest)
		writer, reader := c.buses[i%3].Artifacts(), c.buses[(i+1)%3].Artifacts()
		n, err := writer.Put(t.Context(), name, chopped{bytes.NewReader(content)})
		if err != nil || n != int64(len(content)) {
			t.Fatalf("putting %d: %d bytes; %v", i, n, err)
		}
		r, size, err := reader.Open(t.Context(), name)
		same("reading", r, size, err)
		r, size, err = link.Open(t.Context(), digest)
		same("a worker's reading", r, size, err)
		if has, err := reader.Has(t.Context(), name); err != nil || !has {
			t.Errorf("looking up: %v, %v", has, err)
		}
		if all, err := reader.List(t.Context()); err != nil || len(all) != 1 || all[0].Size != int64(len(content)) {
			t.Errorf("listing: %+v, %v", all, err)
		}
		if err := writer.Delete(t.Context(), name); err != nil {
			t.Errorf("deleting: %v", err)
		}
		if has, err := reader.Has(t.Context(), name); err != nil || has {
			t.Errorf("looking up what was deleted: %v, %v", has, err)
		}
	}
	if n := messages(t, c.buses[0], c.buses[0].Artifacts()); n > 3 {
		t.Errorf("%d messages are left of 3 objects that were deleted", n)
	}
}

// Those who may connect are let in and shut out, each by another server, while one election follows the other.
func TestCallersThroughElections(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	c.disturb("KV_" + bus.BucketMembers)
	for i := range 10 {
		name := fmt.Sprintf("caller%d", i)
		made, _, err := c.buses[i%3].Callers().Create(name, []string{bus.AllNamespaces})
		if err != nil {
			t.Fatalf("creating %s: %v", name, err)
		}
		if _, err := c.buses[(i+1)%3].Callers().Revoke(made.ID); err != nil {
			t.Fatalf("revoking %s: %v", name, err)
		}
		if _, _, err := c.buses[(i+2)%3].Roster().CreateToken(name, time.Hour); err != nil {
			t.Fatalf("a token for %s: %v", name, err)
		}
	}
}

// Records are written, read and removed while one election follows the other.
func TestRecordsThroughElections(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	c.disturb(c.buses[0].Functions().Stream())
	for i := range 20 {
		ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("fn%d", i)}
		fn := functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name}
		key := bus.FunctionKey(ref)
		table, other := c.buses[i%3].Functions(), c.buses[(i+1)%3].Functions()
		rev, err := table.Create(t.Context(), key, fn)
		if err != nil {
			t.Fatalf("creating %s: %v", key, err)
		}
		fn.Generation++
		if rev, err = other.Update(t.Context(), key, fn, rev); err != nil {
			t.Fatalf("updating %s: %v", key, err)
		}
		if _, err := table.Update(t.Context(), key, functions.Function{Schema: 1, Name: "other"}, rev-1); !fault.Is(err, fault.CodeConflict) {
			t.Errorf("%s is updated from a revision that it does not have: %v", key, err)
		}
		if got, at, err := table.Get(t.Context(), key); err != nil || at != rev || got.Generation != 1 {
			t.Errorf("reading %s: %+v at %d, not %d; %v", key, got, at, rev, err)
		}
		fn.Generation++
		if _, err := other.Put(t.Context(), key, fn); err != nil {
			t.Errorf("putting %s: %v", key, err)
		}
		if err := table.Delete(t.Context(), key); err != nil {
			t.Errorf("deleting %s: %v", key, err)
		}
	}
	if keys, err := c.buses[0].Functions().Keys(t.Context(), ""); err != nil || len(keys) > 0 {
		t.Errorf("left are %q; %v", keys, err)
	}
}

// A try that meets the one before on its way, whose answer was lost, is no conflict: it is made again, until that one is stored.
func TestATryMeetsTheOneBefore(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	table, tries, stored := c.buses[0].Functions(), 0, uint64(0)
	rev, err := table.WriteBy(t.Context(), "one", []byte(`{"schema":1}`), func(ctx context.Context, data []byte) (uint64, error) {
		switch tries++; tries {
		case 1:
			return 0, context.DeadlineExceeded
		case 2:
			return 0, &jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequenceConstant}
		}
		if stored == 0 {
			var err error
			if stored, err = table.CreateEncoded(t.Context(), "one", data); err != nil {
				return 0, err
			}
		}
		return 0, &jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}
	})
	if err != nil || rev != stored || tries != 3 {
		t.Errorf("after %d tries it is stored as %d, and was as %d; %v", tries, rev, stored, err)
	}
}
