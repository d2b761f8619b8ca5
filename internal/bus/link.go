package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// JoinConfig says which server a worker joins.
type JoinConfig struct {
	// DataDir is the worker's data directory; it is made, mode 0700, where it is missing. One process holds it at a time.
	DataDir string
	// URL is where the server listens for workers, such as nats://127.0.0.1:4222.
	URL string
	// Token lets the worker join, and says by which certificate authority the server is known: one of the worker's own, or that of WorkerTokenFile
	// in the server's data directory. Once it has joined its key is enough.
	Token string
	// DismissAfter is how long the server may refuse a worker that it had let in before the worker takes it for final. Default 10s.
	DismissAfter time.Duration
}

// Link is a worker's connection to the bus of a server elsewhere. It finds the server again by itself. It is safe for concurrent use.
type Link struct {
	cfg      JoinConfig
	dir      string
	identity Identity
	cred     credentials
	boot     string
	lock     *os.File
	nc       *nats.Conn
	log      *slog.Logger
	// keeper holds the certificate, pin says by which authority the server is known as long as there is none.
	keeper *pki.Keeper
	pin    string
	// wanted has the last question for the worker's certificate.
	wanted chan []byte
	// met says that the server has let this run in.
	met atomic.Bool

	dismissAfter time.Duration
	// dismissed is closed when the server has refused the worker for so long.
	dismissed chan struct{}
	audit     *audit

	mu sync.Mutex
	// refused is when it began to; zero while it does not. Said is when the log told last what is waited for.
	refused, said time.Time
}

const (
	joinTimeout = 5 * time.Second
	// The wait between two tries to find the server again grows from the first to the last, give or take a half.
	firstRejoin = 50 * time.Millisecond
	lastRejoin  = 2 * time.Second
	// refusedFor is how long a refusal may last that is due to an earlier process of this worker, whose connection is not seen to be gone yet.
	refusedFor = 2 * time.Second
	// sayEvery is how often the log tells that the server is waited for.
	sayEvery = time.Minute
	// vanishedAfter bounds how long a server that vanished is taken to be there, from what was said first without its kernel's word; a worker says
	// something every BeatEvery.
	vanishedAfter = time.Second
	// pingEvery and maxPings bound, to twice pingEvery, how long a server is taken to be there whose machine answers and whose process does not. Each
	// ping wakes both processes, a thousand workers' a server all the time.
	pingEvery = 2 * time.Second
	maxPings  = 1
)

// Join takes the data directory and connects to the server. A server that does not answer is tried again until it does, without end; one
// that refuses the token, or the node because another worker has joined as it, and one that is not the token's, is a denied fault. Close must
// be called.
func Join(cfg JoinConfig, log *slog.Logger) (*Link, error) {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("finding the data directory: %w", err)
	}
	l := &Link{
		cfg: cfg, dir: dir, boot: rand.Text(), log: log, keeper: pki.NewKeeper(), audit: newAudit(dir, log),
		dismissAfter: cmp.Or(cfg.DismissAfter, 10*time.Second), dismissed: make(chan struct{}),
		wanted: make(chan []byte, 1),
	}
	if l.lock, err = lockDir(dir, ModeWorker); err != nil {
		return nil, err
	}
	if err := l.open(); err != nil {
		_ = l.lock.Close()
		return nil, err
	}
	return l, nil
}

// open reads who the worker is, and connects.
func (l *Link) open() error {
	var err error
	if l.identity, err = loadIdentity(l.dir, ModeWorker, "", time.Now()); err != nil {
		return err
	}
	if l.cred, err = loadCredentials(l.dir); err != nil {
		return err
	}
	if err := l.loadCertificate(l.dir); err != nil {
		return err
	}
	if l.pinned() == "" {
		return fault.New(fault.CodeInvalidRequest, "the token does not say by which certificate authority the server is known").WithField("token-file").
			WithHint("it is of an older tatami: take the server's %s as it is now, or make another token: tatami token create --node NAME --file FILE", WorkerTokenFile)
	}
	if l.nc, err = l.connect(); err != nil {
		return err
	}
	if _, err := l.nc.Subscribe(SubjectCertificatesWanted, l.hear); err != nil {
		l.nc.Close()
		return fmt.Errorf("subscribing to %s: %w", SubjectCertificatesWanted, err)
	}
	return nil
}

func (l *Link) connect() (*nats.Conn, error) {
	url := l.cfg.URL
	opts := l.options(l.keeper.Reach(pki.Only(pki.RoleServer)),
		nats.SetCustomDialer(dialer{l}), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(maxPings),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(rejoinDelay), nats.IgnoreAuthErrorAbort(),
		// What is not sent at once is told again in full on the next connection.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(*nats.Conn) { l.heed(nil) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				l.log.Warn("the server is gone; the instances stay", "server", url, "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			l.log.Info("the server is back", "server", url)
			l.heed(nil)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.wait(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			l.heed(err)
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			l.log.Warn("bus connection", "subject", subject, "err", err)
		}),
	)
	nc, err := nats.Connect(url, opts...)
	for begun := time.Now(); errors.Is(err, nats.ErrAuthorization) && time.Since(begun) < refusedFor; {
		time.Sleep(firstRejoin)
		nc, err = nats.Connect(url, opts...)
	}
	switch {
	case err == nil:
		return nc, nil
	case errors.Is(err, nats.ErrAuthorization):
		return nil, fault.Wrap(fault.CodeDenied, err, "the server at %s refuses the token, or this worker as %s", url, l.identity.Node).WithField("token-file").
			WithHint("tatami token ls shows whether the token is used, expired or revoked, the server's %s why it refuses: a token is that of its %s, or one for this worker only (tatami token create); a removed worker, or one whose %s "+
				"was lost, starts anew on another data directory; a copy of one that is in use is refused", AuditFile, WorkerTokenFile, keyFile)
	case fault.KindOf(err) == fault.Denied:
		return nil, fault.Wrap(fault.CodeDenied, err, "the server at %s is not the one of the token", url).WithField("join").
			WithHint("a token is good for the server that made it: make one there with tatami token create, or take its %s", WorkerTokenFile)
	}
	l.wait(err)
	nc, err = nats.Connect(url, append(opts, nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "--join: %q cannot be used", url).WithField("join").
			WithHint("give the address that `tatami up` prints, such as nats://127.0.0.1:4222")
	}
	return nc, nil
}

// wait says, now and again, what the worker waits for.
func (l *Link) wait(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.said) >= sayEvery {
		l.said = now
		l.log.Warn("waiting for the server, which does not answer or lets no one in; trying again", "server", l.cfg.URL, "err", err)
	}
}

// heed takes note of a refusal, or that there is none.
func (l *Link) heed(err error) {
	if err == nil {
		l.met.Store(true)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.refused, l.said = time.Time{}, time.Time{}
	case !errors.Is(err, nats.ErrAuthorization):
	case l.refused.IsZero():
		l.refused = time.Now()
	case time.Since(l.refused) >= l.dismissAfter:
		select {
		case <-l.dismissed:
		default:
			close(l.dismissed)
		}
	}
}

// Run renews the certificate until ctx ends, then returns nil; and before that a denied fault when the server has refused the worker for so
// long that it must have been removed.
func (l *Link) Run(ctx context.Context) error {
	renew := time.NewTimer(0)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.dismissed:
			return fault.New(fault.CodeDenied, "the server refuses this worker as %s: it was removed, its token was revoked, or never good", l.identity.Node).
				WithHint("to join again, start on another data directory with a new token: tatami token create --node NAME")
		case question := <-l.wanted:
			renew.Reset(l.follow(ctx, question))
		case <-renew.C:
			renew.Reset(l.renew(ctx, false))
		}
	}
}

// rejoinDelay is the wait after so many tries.
func rejoinDelay(tries int) time.Duration {
	d := min(firstRejoin<<min(max(tries-1, 0), 10), lastRejoin)
	return d/2 + mrand.N(d)
}

// Identity says whose data directory this is.
func (l *Link) Identity() Identity { return l.identity }

// Boot identifies this run of the process; Envelope carries it.
func (l *Link) Boot() string { return l.boot }

// Conn is the connection. It may be without a server for a while.
func (l *Link) Conn() *nats.Conn { return l.nc }

// Close flushes what was said, where there is a server, ends the connection and gives the data directory back.
func (l *Link) Close(ctx context.Context) {
	flush, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if l.nc.IsConnected() {
		if err := l.nc.FlushWithContext(flush); err != nil {
			l.log.Debug("flushing the bus", "err", err)
		}
	}
	l.nc.Close()
	l.audit.close()
	_ = l.lock.Close()
}

// Refused writes down in the worker's own audit log that who came from an address to its listener was not let in: a reason at most once a minute.
func (l *Link) Refused(remote string, err error) {
	l.audit.refused(slog.String("server", "?"), remote, err)
}

// Named is Bus.Named, asked of the server.
func (l *Link) Named(ctx context.Context, digests []string) ([]string, error) {
	m, err := l.ask(ctx, SupplyRequest{Schema: Schema, Digests: digests})
	if err != nil {
		return nil, err
	}
	a, err := Decode[SupplyAnswer](m.Data)
	return a.Named, err
}

// Open returns the blob of the digest and its size; not-found where the server has none. It asks for one part after the other, and goes on
// where it was when the server was away in between. Whoever reads checks the digest.
func (l *Link) Open(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	r := &blobReader{ctx: ctx, link: l, req: SupplyRequest{Schema: Schema, Blob: digest}}
	m, err := r.next()
	if err != nil {
		return nil, 0, err
	}
	size, err := strconv.ParseInt(m.Header.Get(headerSize), 10, 64)
	if err != nil || size < int64(len(m.Data)) {
		return nil, 0, fmt.Errorf("reading the blob %s: the server says that its size is %q", digest, m.Header.Get(headerSize))
	}
	r.part, r.left = m.Data, size-int64(len(m.Data))
	return r, size, nil
}

// blobReader reads a blob part by part.
type blobReader struct {
	ctx  context.Context
	link *Link
	req  SupplyRequest
	part []byte
	// left is how much is behind part.
	left int64
}

// Read reads on.
func (r *blobReader) Read(p []byte) (int, error) {
	if len(r.part) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		m, err := r.next()
		if err != nil {
			return 0, err
		}
		if len(m.Data) == 0 || int64(len(m.Data)) > r.left {
			return 0, fmt.Errorf("reading the blob %s: a part has %d bytes where %d are left", r.req.Blob, len(m.Data), r.left)
		}
		r.part, r.left = m.Data, r.left-int64(len(m.Data))
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	return n, nil
}

// Close ends the reading.
func (r *blobReader) Close() error { return nil }

func (r *blobReader) next() (*nats.Msg, error) {
	m, err := r.link.ask(r.ctx, r.req)
	if err != nil {
		return nil, err
	}
	r.req.Object = m.Header.Get(headerObject)
	if part := m.Header.Get(headerPart); part != "" {
		if r.req.After, err = strconv.ParseUint(part, 10, 64); err != nil {
			return nil, fmt.Errorf("reading the blob %s: %w", r.req.Blob, err)
		}
	}
	return m, nil
}

const (
	// askPatience is how long a question is put again to a server that is away, or that finds nobody who leads the store.
	askPatience = 30 * time.Second
	askPause    = 100 * time.Millisecond
	askTimeout  = deskTimeout
)

// ask puts a question to the desk.
func (l *Link) ask(ctx context.Context, q SupplyRequest) (*nats.Msg, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	over, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	for {
		m, err := l.askOnce(over, data)
		if err != nil {
			err = fault.Wrap(fault.CodeUnavailable, err, "the server does not answer")
		} else if err = refusalIn(m); fault.KindOf(err) != fault.Unavailable {
			return m, err
		}
		select {
		case <-over.Done():
			return nil, err
		case <-time.After(askPause):
		}
	}
}

func (l *Link) askOnce(ctx context.Context, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return l.nc.RequestWithContext(ctx, SupplySubject(l.identity.Node), data)
}
