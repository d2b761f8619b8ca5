package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// ClusterConfig makes a server a member of a cluster.
type ClusterConfig struct {
	// Name is the cluster's: 1 to 63 small letters, digits and hyphens.
	Name string
	// Listen is the address at which the other servers reach this one; it is among Peers.
	Listen string
	// Peers are the addresses of all servers, this one included: three or five, the same on every server.
	Peers []string
	// Authority is the certificate authority that all servers have in common, as Authority.Encode of package pki wrote it. Needed at the first
	// start; it is kept in the data directory.
	Authority []byte
	// About is what the server tells the others of itself; what the bus knows is filled in.
	About ServerInfo
}

const (
	// formTimeout bounds the wait for the other servers at the start.
	formTimeout = 5 * time.Minute
	// formSay is when the log first tells that they are waited for.
	formSay = 2 * time.Second
	// formTry bounds one try to make or open the streams: a question is lost where nobody leads.
	formTry = 10 * time.Second
	// formPatience is how long the server that is to make the streams is waited for.
	formPatience = 15 * time.Second
	// formRetry is the wait between two tries to make a stream while the cluster forms.
	formRetry = 100 * time.Millisecond
)

func (c *ClusterConfig) validate() error {
	if err := functions.ValidateName("cluster", c.Name); err != nil {
		return err
	}
	if len(c.Peers) != 3 && len(c.Peers) != 5 {
		return fault.New(fault.CodeInvalidRequest, "peers: there are %d servers: three or five agree on what is stored", len(c.Peers)).WithField("peers")
	}
	for i, p := range c.Peers {
		if err := CheckAddress("peers", p); err != nil {
			return err
		}
		if slices.Contains(c.Peers[:i], p) {
			return fault.New(fault.CodeInvalidRequest, "peers: %s is named twice", p).WithField("peers")
		}
	}
	if !slices.Contains(c.Peers, c.Listen) {
		return fault.New(fault.CodeInvalidRequest, "cluster-listen: %q is not among the peers", c.Listen).WithField("cluster-listen").
			WithHint("every server gets the same list of peers, in which it stands itself: %s", strings.Join(c.Peers, ","))
	}
	return nil
}

// text is the cluster's part of the server's configuration. At the first start the number of routes is that of the servers that must agree.
func (c *ClusterConfig) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster {\n  name: %s\n  listen: %s\n  routes: [", strconv.Quote(c.Name), strconv.Quote(c.Listen))
	for i, p := range c.Peers {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s", strconv.Quote("nats-route://"+p))
	}
	b.WriteString(" ]\n}\n")
	return b.String()
}

// joinCluster has the server speak to the others over TLS that both sides authenticate.
func joinCluster(opts *server.Options, door *doorman) {
	opts.Cluster.TLSConfig = door.keeper.Mutual(pki.Only(pki.RoleServer), door.audit.refusedServer)
	door.routes.follow(opts.Cluster.TLSConfig)
	opts.Cluster.TLSTimeout = handshakePatience.Seconds()
}

// awaitCluster returns when the server agrees with the others on what there is.
func (b *Bus) awaitCluster(ctx context.Context) error {
	over := time.NewTimer(formTimeout)
	defer over.Stop()
	next := time.Now().Add(formSay)
	for !b.srv.JetStreamIsCurrent() || !b.answered(ctx) {
		if time.Now().After(next) {
			next = time.Now().Add(sayEvery / 4)
			b.log.Warn("waiting for the other servers of the cluster: most of them have to run, and all of them where it starts for the first time", "peers", strings.Join(b.cfg.Cluster.Peers, ","))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return fault.New(fault.CodeUnavailable, "the other servers of the cluster were not found within %s", formTimeout).
				WithHint("look whether they run, have the same --cluster-secret, and reach each other at %s", strings.Join(b.cfg.Cluster.Peers, ", "))
		case <-time.After(formRetry):
		}
		if err := b.giveWay(); err != nil {
			return err
		}
	}
	return nil
}

// answered reports whether a server that leads answers questions about the store. One that is put while nobody leads is lost.
func (b *Bus) answered(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, ledPatience)
	defer cancel()
	_, err := b.js.AccountInfo(ctx)
	return err == nil
}

// Await returns when a server leads the store as a whole, and each of the streams. It does at once where the server stands alone.
func (b *Bus) Await(ctx context.Context, streams ...string) error {
	if b.cfg.Cluster == nil {
		return nil
	}
	for _, name := range streams {
		if err := b.awaitAnswer(ctx, func(ctx context.Context) bool { return b.led(ctx, name) }); err != nil {
			return err
		}
	}
	return b.awaitAnswer(ctx, b.answered)
}

// ledPatience bounds one question for who leads a stream: it is lost where nobody does.
const ledPatience = 500 * time.Millisecond

// awaitAnswer asks until the answer is yes. The first answers are waited for shortly.
func (b *Bus) awaitAnswer(ctx context.Context, ask func(context.Context) bool) error {
	for each := firstTry; ; each = min(2*each, ledPatience) {
		pause := time.NewTimer(min(each, formRetry))
		once, cancel := context.WithTimeout(ctx, each)
		yes := ask(once)
		cancel()
		if yes {
			pause.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// led reports whether a server leads a stream and answers.
func (b *Bus) led(ctx context.Context, stream string) bool {
	st, err := b.js.Stream(ctx, stream)
	if err != nil {
		return false
	}
	c := st.CachedInfo().Cluster
	return c != nil && c.Leader != ""
}

// form returns when every stream and bucket is there. One server makes them: of two that make the same stream at once one gets no answer.
func (b *Bus) form(ctx context.Context, l layout) (stores, error) {
	ctx, cancel := context.WithTimeout(ctx, formTimeout)
	defer cancel()
	for begun := time.Now(); ; {
		s, err := b.formOnce(ctx, l, time.Since(begun) > formPatience)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		b.log.Debug("the cluster is not ready yet", "err", err)
		select {
		case <-time.After(formRetry):
		case <-ctx.Done():
			return s, err
		}
		if err := b.giveWay(); err != nil {
			return s, err
		}
	}
}

// formOnce opens what there is, and makes it first where this server is the one to do that, or the one that is does not.
func (b *Bus) formOnce(ctx context.Context, l layout, anyway bool) (stores, error) {
	ctx, cancel := context.WithTimeout(ctx, formTry)
	defer cancel()
	if anyway || b.srv.JetStreamIsLeader() {
		if err := l.make(ctx, b.js); err != nil {
			return stores{}, err
		}
		if err := l.settle(ctx, b.js); err != nil {
			return stores{}, err
		}
	}
	return l.bind(ctx, b.js)
}

// replicated has every stream and bucket held by all servers, so that each is there while most of them run, and read where it is written: another server
// may know less.
func (l layout) replicated(servers int) layout {
	for i := range l.Streams {
		l.Streams[i].Replicas, l.Streams[i].AllowDirect = servers, false
	}
	for i := range l.Buckets {
		l.Buckets[i].Replicas = servers
	}
	for i := range l.Objects {
		l.Objects[i].Replicas = servers
	}
	l.Buckets = append(l.Buckets,
		jetstream.KeyValueConfig{Bucket: BucketMembers, Description: "the workers that may join", History: 1, Storage: jetstream.FileStorage, Replicas: servers},
		// What else it is like leadStream says.
		jetstream.KeyValueConfig{Bucket: BucketLead, History: 1, Replicas: servers})
	return l
}

// make makes what is missing. What is there is asked for first, insistently: after an outage nobody leads it for a while. Buckets that exist are left to settle: the client would have them read from any server again.
func (l layout) make(ctx context.Context, js jetstream.JetStream) error {
	for _, c := range l.Streams {
		// A change of a stream that nobody leads is lost, and would be waited for in vain.
		_, err := opened(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, c.Name) })
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = js.CreateOrUpdateStream(ctx, c)
		}
		if err != nil {
			return fmt.Errorf("making stream %s: %w", c.Name, err)
		}
	}
	if err := makeLead(ctx, js, l.replicas()); err != nil {
		return err
	}
	for _, c := range l.Buckets {
		_, err := opened(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return js.KeyValue(ctx, c.Bucket) })
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = js.CreateKeyValue(ctx, c)
		}
		if err != nil {
			return fmt.Errorf("making bucket %s: %w", c.Bucket, err)
		}
	}
	for _, c := range l.Objects {
		_, err := opened(ctx, func(ctx context.Context) (jetstream.ObjectStore, error) { return js.ObjectStore(ctx, c.Bucket) })
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = js.CreateObjectStore(ctx, c)
		}
		if err != nil {
			return fmt.Errorf("making object bucket %s: %w", c.Bucket, err)
		}
	}
	return nil
}

// settled reports whether a stream or bucket is read where it is written only, and held by all servers on disk.
func (l layout) settled(c *jetstream.StreamConfig) bool {
	return !c.AllowDirect && c.Replicas == l.replicas() && c.Storage == jetstream.FileStorage
}

// replicas is how many servers hold each stream.
func (l layout) replicas() int { return l.Streams[0].Replicas }

// settle makes streams and buckets so that are not: the client has buckets read from any server, and before, three of five servers held them.
func (l layout) settle(ctx context.Context, js jetstream.JetStream) error {
	for _, name := range l.names() {
		stream, err := opened(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, name) })
		if err != nil {
			return fmt.Errorf("opening %s: %w", name, err)
		}
		c := stream.CachedInfo().Config
		if l.settled(&c) {
			continue
		}
		c.AllowDirect, c.Replicas = false, l.replicas()
		if _, err := js.UpdateStream(ctx, c); err != nil {
			return fmt.Errorf("setting up %s: %w", name, err)
		}
	}
	return nil
}

// bind opens every stream and bucket, once they are as settle leaves them: whoever opens them remembers how to read.
func (l layout) bind(ctx context.Context, js jetstream.JetStream) (stores, error) {
	for _, name := range l.names() {
		st, err := opened(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, name) })
		if err != nil {
			return stores{}, fmt.Errorf("opening %s: %w", name, err)
		}
		if !l.settled(&st.CachedInfo().Config) {
			return stores{}, fmt.Errorf("%s is not set up yet", name)
		}
	}
	s := newStores()
	for _, c := range l.Streams {
		st, err := opened(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, c.Name) })
		if err != nil {
			return stores{}, fmt.Errorf("opening stream %s: %w", c.Name, err)
		}
		s.put(c.Name, st)
	}
	for _, c := range l.Buckets {
		kv, err := opened(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return js.KeyValue(ctx, c.Bucket) })
		if err != nil {
			return stores{}, fmt.Errorf("opening bucket %s: %w", c.Bucket, err)
		}
		s.buckets[c.Bucket] = kv
	}
	for _, c := range l.Objects {
		o, err := opened(ctx, func(ctx context.Context) (jetstream.ObjectStore, error) { return js.ObjectStore(ctx, c.Bucket) })
		if err != nil {
			return stores{}, fmt.Errorf("opening object bucket %s: %w", c.Bucket, err)
		}
		st, err := js.Stream(ctx, objectStream(c.Bucket))
		if err != nil {
			return stores{}, fmt.Errorf("opening object bucket %s: %w", c.Bucket, err)
		}
		s.objects[c.Bucket] = objectBucket{o, st}
	}
	return s, nil
}

// opened opens something, and asks again where no answer comes: whoever leads it may be changing.
func opened[T any](ctx context.Context, open func(context.Context) (T, error)) (T, error) {
	return insist(ctx, formTry, firstStore, electTry, open)
}
