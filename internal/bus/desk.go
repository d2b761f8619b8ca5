package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// SupplyRequest is a worker's question to the desk; Blob or Digests is set.
type SupplyRequest struct {
	Schema int `json:"schema"`
	// Blob is the digest of a blob of which a part is wanted: the first one, or the one behind After of Object, as the part before named it.
	Blob   string `json:"blob,omitempty"`
	Object string `json:"object,omitempty"`
	After  uint64 `json:"after,omitempty"`
	// Digests are those of which the answer names the ones that functions need.
	Digests []string `json:"digests,omitempty"`
}

// SupplyAnswer is the answer to a question about Digests.
type SupplyAnswer struct {
	Schema int      `json:"schema"`
	Named  []string `json:"named"`
}

// Headers of the desk's answers. The data of one about a blob is a part of it.
const (
	headerSize   = "Tatami-Size"
	headerObject = "Tatami-Object"
	headerPart   = "Tatami-Part"
	headerError  = "Tatami-Error"
	headerHint   = "Tatami-Hint"
)

const (
	// deskClerks is how many questions are answered at once, deskBacklog how many may wait.
	deskClerks  = 4
	deskBacklog = 256
	// deskTimeout bounds one answer, electPatience in it.
	deskTimeout = electPatience + 5*time.Second
)

// Desk gives joined workers what they need of the store, and nothing else: the artifacts' blobs, and which artifacts are needed.
type Desk struct {
	bus   *Bus
	log   *slog.Logger
	ready chan struct{}
}

// NewDesk makes a desk; it starts nothing.
func NewDesk(b *Bus, log *slog.Logger) *Desk {
	return &Desk{bus: b, log: log, ready: make(chan struct{})}
}

// Ready is closed once questions are taken.
func (d *Desk) Ready() <-chan struct{} { return d.ready }

// Run answers until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	questions := make(chan *nats.Msg, deskBacklog)
	sub, err := d.bus.nc.ChanQueueSubscribe(subjectSupply, queueDesk, questions)
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subjectSupply, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := d.bus.nc.FlushTimeout(deskTimeout); err != nil {
		return fmt.Errorf("subscribing to %s: %w", subjectSupply, err)
	}
	close(d.ready)
	var g errgroup.Group
	for range deskClerks {
		g.Go(func() error {
			for {
				select {
				case m := <-questions:
					d.answer(ctx, m)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return g.Wait()
}

func (d *Desk) answer(ctx context.Context, m *nats.Msg) {
	node := functions.NodeID(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	// Whoever asks names the subject of the answer: it must not speak to others with this process's voice.
	if !strings.HasPrefix(m.Reply, inboxOf(node)+".") {
		d.log.Warn("a worker's question wants its answer elsewhere", "node", node, "subject", m.Reply)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deskTimeout)
	defer cancel()
	out := nats.NewMsg(m.Reply)
	req, err := Decode[SupplyRequest](m.Data)
	switch {
	case err != nil:
	case req.Blob != "":
		err = d.part(ctx, req, out)
	default:
		var a SupplyAnswer
		a.Schema = Schema
		if a.Named, err = d.bus.Named(ctx, req.Digests); err == nil {
			out.Data, err = json.Marshal(a)
		}
	}
	if err != nil {
		refuse(out, err)
	}
	if err := d.bus.nc.PublishMsg(out); err != nil {
		d.log.Warn("a worker's question was not answered", "node", node, "err", err)
	}
}

// objectID is what the store calls an object's parts by.
var objectID = regexp.MustCompile(`^[A-Za-z0-9]{22}$`)

// part puts the part of a blob that is asked for into out.
func (d *Desk) part(ctx context.Context, req SupplyRequest, out *nats.Msg) error {
	if req.Object == "" {
		info, err := d.bus.artifacts.describe(ctx, ArtifactObject(req.Blob))
		if err != nil {
			return d.bus.artifacts.fail(err, "reading", req.Blob)
		}
		req.Object, req.After = info.NUID, 0
		out.Header.Set(headerSize, strconv.FormatUint(info.Size, 10))
		if info.Size == 0 {
			return nil
		}
	}
	if !objectID.MatchString(req.Object) {
		return fault.New(fault.CodeInvalidRequest, "object: %q is none", req.Object).WithField("object")
	}
	msg, err := d.bus.artifacts.part(ctx, req.Object, req.After)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fault.New(fault.CodeConflict, "the blob %s was replaced meanwhile", req.Blob).WithHint("try again")
	}
	if err != nil {
		return d.bus.artifacts.fail(err, "reading", req.Blob)
	}
	out.Header.Set(headerObject, req.Object)
	out.Header.Set(headerPart, strconv.FormatUint(msg.Sequence, 10))
	out.Data = msg.Data
	return nil
}

// namedAge is how long what is known of the needed artifacts counts.
const namedAge = time.Second

// named remembers which artifacts are needed, so that many may ask.
type named struct {
	mu      sync.Mutex
	read    time.Time
	digests map[string]bool
}

// Named returns those of the digests whose artifacts a revision that can get traffic is made of, as of a second ago at most.
func (b *Bus) Named(ctx context.Context, digests []string) ([]string, error) {
	n := &b.named
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.read) > namedAge {
		begun := time.Now()
		revs, err := b.revisions.List(ctx, "")
		if err != nil {
			return nil, err
		}
		n.read, n.digests = begun, make(map[string]bool, len(revs))
		for _, r := range revs {
			if r.Value.State != functions.RevisionFailed {
				n.digests[r.Value.Artifact.Digest] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(digests), func(d string) bool { return !n.digests[d] }), nil
}
