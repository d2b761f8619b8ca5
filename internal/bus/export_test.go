package bus

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// AwaitReady waits for a server that may never take connections.
var AwaitReady = awaitReady

// Silence has the next watch of the table go silent when the function that it returns is called: nothing comes of it any more once that has returned. It is not
// silent by itself when it has shown what there is: the server that feeds it may have known less, and shows the rest later.
func (t *Table[T]) Silence() (now func()) {
	s := &silentBucket{KeyValue: t.kv, hush: make(chan struct{}), hushed: make(chan struct{})}
	t.kv = s
	return s.silence
}

type silentBucket struct {
	jetstream.KeyValue
	begun        bool
	hush, hushed chan struct{}
}

func (s *silentBucket) silence() {
	close(s.hush)
	<-s.hushed
}

func (s *silentBucket) Watch(ctx context.Context, keys string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w, err := s.KeyValue.Watch(ctx, keys, opts...)
	if err != nil || s.begun {
		return w, err
	}
	s.begun = true
	silent := silentWatch{w, make(chan jetstream.KeyValueEntry)}
	go silent.pass(ctx, s)
	return silent, nil
}

type silentWatch struct {
	jetstream.KeyWatcher
	updates chan jetstream.KeyValueEntry
}

func (s silentWatch) Updates() <-chan jetstream.KeyValueEntry { return s.updates }

// pass passes on what the watch shows until it is hushed, and ends with the watch's context.
func (s silentWatch) pass(ctx context.Context, b *silentBucket) {
	defer close(s.updates)
	for {
		var e jetstream.KeyValueEntry
		// Nothing comes out until something has come in.
		out := chan<- jetstream.KeyValueEntry(nil)
		select {
		case e = <-s.KeyWatcher.Updates():
			out = s.updates
		case <-b.hush:
		case <-ctx.Done():
			return
		}
		select {
		case out <- e:
		case <-b.hush:
			close(b.hushed)
			<-ctx.Done()
			return
		case <-ctx.Done():
			return
		}
	}
}

// WriteBy writes a record as put does it, again and again.
func (t *Table[T]) WriteBy(ctx context.Context, key string, data []byte, put func(context.Context, []byte) (uint64, error)) (uint64, error) {
	return t.writeEncoded(ctx, key, data, put)
}

// BegunWatch is a watch of a cluster's bucket, which end ends.
func BegunWatch(w jetstream.KeyWatcher, end context.CancelFunc) jetstream.KeyWatcher {
	return watching{w, end}
}

// HashOf is what the roster keeps of a secret.
func HashOf(secret string) string { return hashOf(secret) }

// ClearLeftoversBefore removes the parts without a name that were written before a time.
func (b *Bus) ClearLeftoversBefore(ctx context.Context, t time.Time) error {
	return b.clearLeftovers(ctx, t)
}

// SetPatience changes how long whoever writes an object may take for a part.
func (o *Objects) SetPatience(d time.Duration) { o.patience = d }

// YieldAll has others lead what this server leads, as the server does that leads the cluster.
func (b *Bus) YieldAll(t testing.TB) {
	t.Helper()
	b.yieldAll(t.Context())
}

// StepDown has another server lead a stream, and the store as a whole, where this one does; it reports whether it led any.
func (b *Bus) StepDown(ctx context.Context, stream string) (led bool) {
	if b.srv.JetStreamIsStreamLeader(AccountTatami, stream) {
		led = b.srv.JetStreamStepdownStream(AccountTatami, stream) == nil
	}
	if b.srv.JetStreamIsLeader() {
		led = b.yieldStore(ctx) == nil || led
	}
	return led
}

// Settle has a stream held by one server only, as three of five held it once, and then brings it up to date. It returns how many hold it.
func (b *Bus) Settle(ctx context.Context, stream string) (int, error) {
	st, err := b.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	c := st.CachedInfo().Config
	c.Replicas = 1
	if _, err := b.js.UpdateStream(ctx, c); err != nil {
		return 0, err
	}
	if err := layoutOf(b.cfg).settle(ctx, b.js); err != nil {
		return 0, err
	}
	info, err := st.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.Config.Replicas, nil
}

// Routes is how many connections to other servers there are, and how many of those that were made to this one began with a certificate that is not
// believed now.
func (b *Bus) Routes() (all, stale int) {
	_, _, stale = b.door.routes.end(b.authority.authority().Trust(), func(string) bool { return false })
	return b.srv.NumRoutes(), stale
}

// LeadsStreams lists the streams that this server leads, and "" where it leads the store as a whole.
func (b *Bus) LeadsStreams() (out []string) {
	if b.srv.JetStreamIsLeader() {
		out = append(out, "")
	}
	for _, name := range b.replicatedStreams() {
		if b.srv.JetStreamIsStreamLeader(AccountTatami, name) {
			out = append(out, name)
		}
	}
	return out
}

// Holder is another server that holds what this one leads.
type Holder struct {
	Name    string
	Current bool
	Silent  time.Duration
}

// HeirOf names the one of them that is to lead it.
func HeirOf(others []Holder, turn int) (string, error) {
	var all []holder
	for _, h := range others {
		all = append(all, holder{h.Name, h.Current, h.Silent})
	}
	return heirOf(all, turn)
}

// Hear has the server hear what one of the cluster, or it itself, told at a time.
func (b *Bus) Hear(at time.Time, s Sighting) { b.sight.hear(at, s) }

// LeaveToWhole has another server lead what this one does, while that one hears more.
func (b *Bus) LeaveToWhole(ctx context.Context) { b.leaveToWhole(ctx) }

// View is what a server sees of the others, of which it is told.
type View struct{ s *sight }

// NewView makes the view of a server.
func NewView(server string) View { return View{newSight(server, "boot")} }

// Hear takes what a server tells.
func (v View) Hear(at time.Time, s Sighting) { v.s.hear(at, s) }

// Own is what the server tells of itself.
func (v View) Own(at time.Time) Sighting { return v.s.own(at) }

// Leave has the server tell that it ends.
func (v View) Leave() { v.s.leave() }

// Introduce has the others told what this server is, and Servers lists those at the peers.
func (v View) Introduce(about ServerInfo)                         { v.s.introduce(about) }
func (v View) Servers(at time.Time, peers ...string) []ServerView { return v.s.servers(at, peers) }

// Doubted is closed when a server is missed that was heard.
func (v View) Doubted() <-chan struct{} { return v.s.doubted() }

// Parted, MayLead and TurnsAway are what follows from it.
func (v View) Parted() bool                { return v.s.isParted() }
func (v View) MayLead(name string) bool    { return v.s.mayLead(name) }
func (v View) TurnsAway(at time.Time) bool { return v.s.turnsAway(at) }

// Dial makes a connection as those of a link are made.
func Dial(l *Link, address string) (net.Conn, error) { return dialer{l}.Dial("tcp", address) }

// GiveWay is what a server, which was at a peer before and listens at another one, says while the cluster forms and these texts are logged.
func GiveWay(was, listen string, texts ...string) error {
	b := &Bus{identity: Identity{ServerName: "tatami-x", Peer: was}, cfg: Config{Cluster: &ClusterConfig{Listen: listen}}, door: &doorman{twins: newTwins()}}
	for _, text := range texts {
		b.door.twins.overheard(text, time.Now())
	}
	return b.giveWay()
}

// Overheard is how often a text is told of as that of a twin that is logged at these times.
func Overheard(text string, at ...time.Time) (told int) {
	t := newTwins()
	for _, now := range at {
		if _, tell := t.overheard(text, now); tell {
			told++
		}
	}
	return told
}

// Unled reports whether an error may be due to nobody leading, and StoreFault is what a table says of it.
func Unled(err error) bool { return unled(err) }

// StoreFault is described with Unled.
func StoreFault(err error) error { return (&Bus{failure: newFailure()}).storeFault(err, "doing") }
