package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// CertificatesWanted asks for a Standing. Whoever believes others than these has itself certified anew first.
type CertificatesWanted struct {
	Schema int `json:"schema"`
	// Trusts are the pins of the authorities that count, that of the one that certifies first.
	Trusts []string `json:"trusts"`
}

// Standing says which certificate a worker or a server has.
type Standing struct {
	Schema int `json:"schema"`
	// Serial is the certificate's number, Until when it ends.
	Serial string    `json:"serial"`
	Until  time.Time `json:"until"`
	// Trusts are the pins of the authorities that it believes, that of the one that certified it first.
	Trusts []string `json:"trusts"`
}

func standingOf(i *pki.Identity) Standing {
	return Standing{Schema: Schema, Serial: i.Serial(), Until: i.Until(), Trusts: i.Trust().Pins()}
}

// Certificate is a certificate that is in use.
type Certificate struct {
	// Who is a node's id, or a server's name.
	Who string
	// Node says that it is a worker's.
	Node bool
	// Standing is empty where nothing was heard of it since the server began.
	Standing
	// Behind says that it does not believe yet whom this server believes.
	Behind bool
}

// Certificates are those of the servers and the workers, and the authority that they are from. It is safe for concurrent use.
type Certificates struct {
	nc        *nats.Conn
	authority *authorityRecord
	roster    *Roster
	keeper    *pki.Keeper
	audit     *audit
	log       *slog.Logger
	// server is this one's name, servers is how many there are.
	server  string
	servers int
	life    time.Duration
	// routes are the other servers' connections; nil where there are none. EndedAt is when some were ended last.
	routes  *routes
	endedAt time.Time

	// wake has Run look again.
	wake chan struct{}
	mu   sync.Mutex
	told map[string]Standing
}

const (
	// wantEvery is how often everybody is asked for so long after the authority has changed, wantSeldom how often after that, while one is to be retired.
	wantEvery  = time.Second
	wantOften  = time.Minute
	wantSeldom = 30 * time.Second
	// routePause is the time from the end of one server's connections to that of the next one's, in which the first makes others. Who does not follow
	// within routePatience is not waited for.
	routePause    = 3 * time.Second
	routePatience = 10 * time.Second
)

// Certificates are those of the servers and the workers; nil where no worker may join. Run must run for the authority to be rotated.
func (b *Bus) Certificates() *Certificates { return b.certificates }

func newCertificates(b *Bus) *Certificates {
	c := &Certificates{
		nc: b.nc, authority: b.authority, roster: b.roster, keeper: b.keeper, audit: b.audit, log: b.log, server: b.identity.ServerName, servers: 1,
		life: b.cfg.CertificateLife, wake: make(chan struct{}, 1), told: map[string]Standing{},
	}
	if b.cfg.Cluster != nil {
		c.servers, c.routes = len(b.cfg.Cluster.Peers), b.door.routes
	}
	return c
}

// Run hears of everybody's certificates until ctx ends, and while the authority changes sees to it that everybody follows; then the one before is
// trusted no longer.
func (c *Certificates) Run(ctx context.Context) error {
	for subject, take := range map[string]nats.MsgHandler{subjectStanding: c.hear, SubjectCertificatesWanted: func(*nats.Msg) { c.stand() }} {
		sub, err := c.nc.Subscribe(subject, take)
		if err != nil {
			return fmt.Errorf("subscribing to %s: %w", subject, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	c.want()
	again := time.NewTicker(wantEvery)
	defer again.Stop()
	changed, asked := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.authority.adopted:
			c.want()
			changed, asked = time.Now(), time.Now()
		case <-c.wake:
		case now := <-again.C:
			retiring := c.authority.authority().Before() != nil
			if now.Sub(changed) < wantOften || retiring && now.Sub(asked) > wantSeldom {
				c.want()
				asked = now
			}
		}
		c.retire()
		c.endRoutes(time.Now(), changed)
	}
}

// endRoutes ends connections of other servers that began under an authority that was replaced at once at a time: who has its key may have made one. Those of
// one server end at a time, so that nobody is without all others.
func (c *Certificates) endRoutes(now, changed time.Time) {
	if c.routes == nil || !c.authority.atOnce.Load() || now.Sub(c.endedAt) < routePause {
		return
	}
	trust := c.authority.authority().Trust()
	peer, ended, left := c.routes.end(trust, func(peer string) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Contains(c.told[peer].Trusts, trust.Pin()) || now.Sub(changed) > routePatience
	})
	if ended > 0 {
		c.endedAt = now
		c.log.Info("connections of a server end that began under an authority that is not trusted any more; it makes others", "server", peer, "connections", ended)
	} else if left == 0 && now.Sub(changed) > routePatience {
		c.authority.atOnce.Store(false)
	}
}

// want asks everybody.
func (c *Certificates) want() {
	c.publish(SubjectCertificatesWanted, CertificatesWanted{Schema: Schema, Trusts: c.authority.authority().Trust().Pins()})
}

// stand says which certificate this server has.
func (c *Certificates) stand() {
	i, err := c.keeper.Identity()
	if err != nil {
		c.log.Error("this server has no certificate", "err", err)
		return
	}
	c.publish(StandingSubject(c.server), standingOf(i))
}

func (c *Certificates) publish(subject string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = c.nc.Publish(subject, data)
	}
	if err != nil {
		c.log.Warn("speaking of certificates", "subject", subject, "err", err)
	}
}

// hear takes note of a standing.
func (c *Certificates) hear(m *nats.Msg) {
	who := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	s, err := Decode[Standing](m.Data)
	if err != nil {
		c.log.Warn("somebody does not say which certificate it has", "who", who, "err", err)
		return
	}
	c.mu.Lock()
	c.told[who] = s
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// List lists the certificates of the servers and of the workers that may connect, servers first.
func (c *Certificates) List() []Certificate {
	pins := c.authority.authority().Trust().Pins()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Certificate
	add := func(who string, node bool) {
		s := c.told[who]
		out = append(out, Certificate{who, node, s, !slices.Equal(s.Trusts, pins)})
	}
	for who := range c.told {
		if !functions.NodeID(who).Valid() {
			add(who, false)
		}
	}
	slices.SortFunc(out, func(x, y Certificate) int { return cmp.Compare(x.Who, y.Who) })
	for _, node := range c.roster.Members() {
		add(string(node), true)
	}
	return out
}

// Authorities are the one that certifies, and the one before while that is trusted, or nil.
func (c *Certificates) Authorities() (now, before *pki.Authority) {
	now = c.authority.authority()
	return now, now.Before()
}

// Waits lists who has still to follow before the authority before can be retired; nothing while none is to be.
func (c *Certificates) Waits() []string {
	now, before := c.Authorities()
	if before == nil {
		return nil
	}
	var out []string
	heard := 0
	for _, cert := range c.List() {
		switch {
		case !cert.Node && !cert.Behind:
			heard++
		case cert.Behind && (!cert.Node || time.Since(now.Began()) < c.life):
			// Whoever was away for a certificate's life needs another one anyway.
			out = append(out, cert.Who)
		}
	}
	if missing := c.servers - heard; missing > 0 && len(out) == 0 {
		out = append(out, fmt.Sprintf("%d servers of which nothing is heard", missing))
	}
	return out
}

// retire ends the trust in the authority before, once everybody has followed.
func (c *Certificates) retire() {
	now, before := c.Authorities()
	if before == nil || len(c.Waits()) > 0 {
		return
	}
	err := c.authority.replace(func(a *pki.Authority) (*pki.Authority, error) {
		if a.Trust().Pin() != now.Trust().Pin() {
			return a, nil
		}
		return a.Retire(), nil
	})
	if err != nil && !fault.Is(err, fault.CodeConflict) {
		c.log.Warn("the authority before is not retired yet; trying again", "err", err)
	}
}

// Rotate has another authority certify. Everybody gets a certificate of it, connections stay, and then the one before is trusted no longer;
// Waits says for whom that waits. With atOnce nobody is waited for: whoever is away has to be given a new token, or the new secret; during a rotation
// that ends the wait. It is a conflict while another rotation is under way.
func (c *Certificates) Rotate(atOnce bool) error {
	return c.authority.replace(func(a *pki.Authority) (*pki.Authority, error) {
		switch {
		case a.Before() == nil:
			next, err := a.Succeed(time.Now())
			if err == nil && atOnce {
				next = next.Retire()
			}
			return next, err
		case atOnce:
			return a.Retire(), nil
		}
		return nil, fault.New(fault.CodeConflict, "the authority is being rotated already; that waits for %s", cmp.Or(strings.Join(c.Waits(), ", "), "nobody")).
			WithHint("tatami cert ls; not to wait any longer: tatami cert rotate --now")
	})
}
