package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// yieldEvery is the wait between two looks of a server that leads the cluster at which streams it leads.
	yieldEvery = time.Second
	// yieldFirst is how long the first look may take while nothing else is done: whoever begins before it is over asks twice.
	yieldFirst = 200 * time.Millisecond
	// stepDownTimeout bounds the wait for one answer to stepDown.
	stepDownTimeout = 2 * time.Second
	// stepDownStore asks whoever leads the store as a whole to let another one do that; only the system account may. StepDownStream asks whoever leads
	// a stream.
	stepDownStore  = "$JS.API.META.LEADER.STEPDOWN"
	stepDownStream = "$JS.API.STREAM.LEADER.STEPDOWN."
)

// yield has other servers lead the streams, and the store as a whole, until ctx ends. When the server that leads the cluster dies, nothing but that
// has to be taken over then: an election of a stream's leader takes up to nine seconds, and has to come first otherwise. First is closed when what could
// be yielded at once is, or that takes long: one answer that does not come is not to keep everybody waiting.
func (b *Bus) yield(ctx context.Context, first chan<- struct{}) {
	begin := sync.OnceFunc(func() { close(first) })
	late := time.AfterFunc(yieldFirst, begin)
	b.yieldAll(ctx)
	late.Stop()
	begin()
	tick := time.NewTicker(yieldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.yieldAll(ctx)
	}
}

// yieldAll has others lead all that this server leads, where there are some that know as much, and returns when they do. The store as a whole comes last:
// while nobody leads it no stream changes hands.
func (b *Bus) yieldAll(ctx context.Context) {
	var asked sync.WaitGroup
	for i, name := range b.replicatedStreams() {
		if b.srv.JetStreamIsStreamLeader(AccountTatami, name) {
			asked.Go(func() { b.told(name, b.yieldStream(ctx, name, i)) })
		}
	}
	asked.Wait()
	if b.srv.JetStreamIsLeader() {
		b.told("the store", b.yieldStore(ctx))
	}
}

func (b *Bus) told(what string, err error) {
	if err != nil {
		b.log.Debug("another server does not lead yet what this one does", "what", what, "err", err)
	}
}

// yieldStore has another server lead the store as a whole.
func (b *Bus) yieldStore(ctx context.Context) error {
	z, err := b.srv.Jsz(&server.JSzOptions{})
	if err != nil || z.Meta == nil {
		return err
	}
	var others []holder
	for _, r := range z.Meta.Replicas {
		others = append(others, holder{r.Name, r.Current && !r.Offline && b.sight.mayLead(r.Name), r.Active})
	}
	heir, err := heirOf(others, 0)
	if err != nil {
		return err
	}
	nc, err := connectAs(b.srv, userSystem, b.pass.system, "yield", b.log)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := stepDown(ctx, nc, stepDownStore, heir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stepDownTimeout)
	defer cancel()
	return b.Await(ctx)
}

// yieldStream has another server lead a stream; turn spreads the streams among those that can.
func (b *Bus) yieldStream(ctx context.Context, name string, turn int) error {
	st, err := insist(ctx, ledPatience, firstTry, ledPatience, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, name) })
	if err != nil || st.CachedInfo().Cluster == nil {
		return err
	}
	var others []holder
	for _, r := range st.CachedInfo().Cluster.Replicas {
		others = append(others, holder{r.Name, r.Current && !r.Offline && b.sight.mayLead(r.Name), r.Active})
	}
	heir, err := heirOf(others, turn)
	if err != nil {
		return err
	}
	return stepDown(ctx, b.nc, stepDownStream+name, heir)
}

// holder is another server that holds what this one leads.
type holder struct {
	name string
	// current says that it has all of it, and is fit to lead; silent for how long it was not heard.
	current bool
	silent  time.Duration
}

// heardWithin is how long ago whoever is to lead was heard last at most: every server says once a second that it is there.
const heardWithin = 1500 * time.Millisecond

// heirOf names one of the others that knows all there is.
func heirOf(others []holder, turn int) (string, error) {
	var able []string
	for _, h := range others {
		if h.current && h.silent < heardWithin {
			able = append(able, h.name)
		}
	}
	if len(able) == 0 {
		return "", fault.New(fault.CodeUnavailable, "no other server knows as much")
	}
	slices.Sort(able)
	return able[turn%len(able)], nil
}

// stepDown asks on a subject that another server, the heir, leads.
func stepDown(ctx context.Context, nc *nats.Conn, subject, heir string) error {
	body, err := json.Marshal(server.JSApiLeaderStepdownRequest{Placement: &server.Placement{Preferred: heir}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stepDownTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("asking that %s leads: %w", heir, err)
	}
	var answer server.JSApiStreamLeaderStepDownResponse
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("asking that %s leads: %w", heir, err)
	}
	if answer.Error != nil {
		return fault.New(fault.CodeUnavailable, "asking that %s leads: %s", heir, answer.Error.Description)
	}
	return nil
}

// replicatedStreams lists the streams that several servers hold.
func (b *Bus) replicatedStreams() []string {
	l := layoutOf(b.cfg)
	return slices.Sorted(slices.Values(l.names()))
}
