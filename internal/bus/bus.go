package bus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// Bus is the embedded server with its streams and buckets, and this process's connection to it. It is safe for concurrent use.
type Bus struct {
	cfg        Config
	log        *slog.Logger
	lock       *os.File
	identity   Identity
	boot       string
	durability string

	srv     *server.Server
	pass    passwords
	roster  *Roster
	callers *Callers
	audit   *audit
	// authority, keeper and certificates are nil where no worker may join.
	authority    *authorityRecord
	keeper       *pki.Keeper
	certificates *Certificates
	nc           *nats.Conn
	js           jetstream.JetStream
	stores       stores
	barrier      *barrier
	spares       *spares
	later        *later
	failure      *failure
	room         room
	named        named
	door         *doorman
	sight        *sight
	close        sync.Once

	functions *Table[functions.Function]
	revisions *Table[functions.Revision]
	quotas    *Table[functions.Quota]
	nodes     *Table[functions.NodeSettings]
	idleTimes *Table[functions.IdleTimes]
	triggers  *Table[functions.Trigger]
	states    *Table[functions.TriggerState]
	results   *Table[functions.Result]
	artifacts *Objects
	bodies    *Objects
}

// closeTimeout bounds the flush at the end.
const closeTimeout = 5 * time.Second

// Open takes the data directory, starts the server in it and makes what is missing. What it finds there is durable when it returns.
// It refuses a directory that another process holds, of a newer schema or of another mode. Close must be called.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Bus, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("finding the data directory: %w", err)
	}
	cfg.DataDir = dir
	b := &Bus{log: log, boot: rand.Text(), failure: newFailure()}
	if b.lock, err = lockDir(dir, cfg.mode()); err != nil {
		return nil, err
	}
	if err := b.open(ctx, cfg); err != nil {
		b.shutdown()
		return nil, err
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context, cfg Config) error {
	var err error
	if b.durability, err = durabilityOf(cfg.DataDir); err != nil {
		return err
	}
	if err := b.checkDurability(cfg); err != nil {
		return err
	}
	size, err := diskSize(cfg.DataDir)
	if err != nil {
		return fmt.Errorf("reading the size of the filesystem: %w", err)
	}
	b.cfg = cfg.withDisk(size)
	if b.identity, err = loadIdentity(cfg.DataDir, cfg.mode(), cfg.clusterName(), time.Now()); err != nil {
		return err
	}
	b.pass = newPasswords()
	door := newDoorman(b.pass, b.identity.Node, b.log)
	if b.cfg.Listen != "" {
		if err := b.openDoor(ctx, door); err != nil {
			return err
		}
	}
	if cfg.Cluster == nil {
		if err := restoreSpares(cfg.streamsDir(), filepath.Join(cfg.DataDir, sparesDir), layoutOf(cfg).latest(), b.log); err != nil {
			return err
		}
	}
	if cfg.Cluster != nil {
		b.sight = newSight(b.identity.ServerName, b.boot)
		door.sight, door.routes, door.twins, b.door = b.sight, &routes{keeper: b.keeper}, newTwins(), door
		if err := b.checkTwin(ctx); err != nil {
			return err
		}
	}
	if b.srv, err = startServer(ctx, b.identity, b.cfg, door, b.failure, b.log); err != nil {
		return err
	}
	if cfg.Cluster != nil {
		b.sight.introduce(b.about())
	}
	if b.nc, err = b.Connect("tatami"); err != nil {
		return err
	}
	patience := time.Duration(0)
	if cfg.Cluster != nil {
		patience = electPatience
	}
	if b.later, err = newLater(b.nc, patience); err != nil {
		return fmt.Errorf("subscribing to the server's answers: %w", err)
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		return fmt.Errorf("opening JetStream: %w", err)
	}
	if b.authority != nil {
		b.certificates = newCertificates(b)
		r := &registrar{authority: b.authority.authority, life: b.cfg.CertificateLife, audit: b.audit, nc: b.nc, log: b.log}
		if err := r.listen(); err != nil {
			return err
		}
	}
	l := layoutOf(b.cfg)
	if cfg.Cluster != nil {
		return b.openCluster(ctx, l)
	}
	if b.stores, err = l.ensure(ctx, b.js); err != nil {
		return err
	}
	if err := b.keepSpares(l); err != nil {
		return err
	}
	b.barrier = newBarrier(b.cfg.streamsDir(), l.names(), fileSyncer{b.spares}, b.failure, b.log)
	// What an earlier process wrote may still be in the page cache only, and so may the new directories.
	if err := syncFilesystem(cfg.DataDir); err != nil {
		return fmt.Errorf("syncing the data directory: %w", err)
	}
	b.spares.watch(func(stream string) error { return b.Barrier(context.Background(), stream) })
	b.openTables()
	return b.clearLeftovers(ctx, time.Time{})
}

// checkDurability refuses to go on where power loss may lose accepted work and that is not wanted.
func (b *Bus) checkDurability(cfg Config) error {
	if !cfg.RequireDurable || b.durability == "" {
		return nil
	}
	return fault.New(fault.CodeConflict, "%s", b.durability).
		WithHint("put the data directory on ext4 mounted with its defaults, or start without --require-durable")
}

// streamsDir has the directories of the streams.
func (c Config) streamsDir() string {
	return filepath.Join(c.DataDir, storeDir, AccountTatami, "streams")
}

// keepSpares gives the blocks second names, or tells that they have none.
func (b *Bus) keepSpares(l layout) error {
	var err error
	if b.spares, err = newSpares(b.cfg.streamsDir(), filepath.Join(b.cfg.DataDir, sparesDir), l, b.log); err == nil {
		return nil
	}
	if b.durability == "" {
		b.durability = "power loss may lose accepted work: blocks of the store cannot be given second names: " + err.Error()
	}
	return b.checkDurability(b.cfg)
}

// openCluster opens what the servers of the cluster have in common.
func (b *Bus) openCluster(ctx context.Context, l layout) error {
	err := b.awaitCluster(ctx)
	if err != nil {
		return err
	}
	if b.stores, err = b.form(ctx, l); err != nil {
		return err
	}
	if err := b.settleAt(); err != nil {
		return err
	}
	b.stores.patient(b)
	b.openTables()
	if err := b.checkMoved(ctx); err != nil {
		return err
	}
	if err := b.takeImport(ctx); err != nil {
		return err
	}
	if err := b.authority.open(ctx, b); err != nil {
		return err
	}
	if err := b.roster.open(ctx, b); err != nil {
		return err
	}
	return b.callers.open(ctx, b)
}

// openTables opens the tables of the layout.
func (b *Bus) openTables() {
	b.functions = newTable[functions.Function](b, BucketFunctions, fault.CodeFunctionNotFound)
	b.revisions = newTable[functions.Revision](b, BucketRevisions, fault.CodeNotFound)
	b.quotas = newTable[functions.Quota](b, BucketQuotas, fault.CodeNotFound)
	b.nodes = newTable[functions.NodeSettings](b, BucketNodes, fault.CodeNotFound)
	b.idleTimes = newTable[functions.IdleTimes](b, BucketIdleTimes, fault.CodeNotFound)
	b.triggers = newTable[functions.Trigger](b, BucketTriggers, fault.CodeNotFound)
	b.states = newTable[functions.TriggerState](b, BucketTriggerStates, fault.CodeNotFound)
	b.results = newTable[functions.Result](b, BucketResults, fault.CodeInvocationNotFound)
	b.artifacts = newObjects(b, ObjectsArtifacts)
	b.bodies = newObjects(b, ObjectsBodies)
}

// openDoor reads, or makes, what clients are let in by.
func (b *Bus) openDoor(ctx context.Context, door *doorman) error {
	var err error
	if c := b.cfg.Cluster; c != nil {
		if err := c.adoptAuthority(b.cfg.DataDir); err != nil {
			return err
		}
	}
	b.audit = newAudit(b.cfg.DataDir, b.log)
	clustered := b.cfg.Cluster != nil
	if b.authority, err = openAuthority(b.cfg.DataDir, clustered, b.audit); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(b.cfg.Listen)
	if err != nil {
		return fmt.Errorf("reading the address of the NATS listener: %w", err)
	}
	// Callers check the name or the address by which they connect, some of them localhost where that is an address.
	b.keeper = pki.NewOwnKeeper(b.authority.authority, pki.Subject{Role: pki.RoleServer, Name: b.identity.ServerName}, b.cfg.CertificateLife, host, "localhost")
	b.authority.keeper = b.keeper
	if b.roster, err = openRoster(b.cfg.DataDir, b.audit); err != nil {
		return err
	}
	b.roster.pin, b.roster.shared = b.authority.pin, b.authority.secrets
	if b.callers, err = openCallers(b.cfg.DataDir, b.audit); err != nil {
		return err
	}
	b.roster.clustered, b.callers.clustered = clustered, clustered
	b.roster.kick, b.callers.kick = door.kick, door.kickCaller
	door.roster, door.callers, door.audit, door.keeper = b.roster, b.callers, b.audit, b.keeper
	if clustered {
		if err := CheckFree(ctx, "cluster-listen", "the other servers", b.cfg.Cluster.Listen); err != nil {
			return err
		}
	}
	return CheckFree(ctx, "nats-listen", "NATS clients", b.cfg.Listen)
}

// WorkerTLS is how this process reaches the listener of a node's worker; nil where none may join.
func (b *Bus) WorkerTLS(node functions.NodeID) *tls.Config {
	if b.keeper == nil {
		return nil
	}
	return b.keeper.Reach(pki.Just(workerSubject(node)))
}

// ServerTLS is how this process reaches other servers of the cluster, ServersOnly how it lets nobody else in; the audit log has the others.
// Both are nil where no worker may join.
func (b *Bus) ServerTLS() *tls.Config {
	if b.keeper == nil {
		return nil
	}
	return b.keeper.Reach(pki.Only(pki.RoleServer))
}

// ServersOnly is described with ServerTLS.
func (b *Bus) ServersOnly() *tls.Config {
	if b.keeper == nil {
		return nil
	}
	return b.keeper.Admit(pki.Only(pki.RoleServer), b.audit.refusedServer)
}

// Connect makes a further in-process connection; whoever asks closes it.
func (b *Bus) Connect(name string) (*nats.Conn, error) { return connect(b.srv, b.pass, name, b.log) }

// Close drains the connection, stops the server and gives the data directory back.
func (b *Bus) Close(ctx context.Context) error {
	var err error
	b.close.Do(func() {
		flush, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		if ferr := b.nc.FlushWithContext(flush); ferr != nil {
			err = fmt.Errorf("flushing the bus: %w", ferr)
		}
		b.shutdown()
	})
	return err
}

// shutdown undoes what open did, as far as it came.
func (b *Bus) shutdown() {
	if b.barrier != nil {
		b.barrier.stop()
	}
	if b.authority != nil {
		b.authority.close()
	}
	if b.roster != nil {
		b.roster.close()
	}
	if b.callers != nil {
		b.callers.close()
	}
	if b.nc != nil {
		b.nc.Close()
	}
	if b.later != nil {
		b.later.close()
	}
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
	b.spares.close()
	b.audit.close()
	_ = b.lock.Close()
}

// Identity says whose data directory this is.
func (b *Bus) Identity() Identity { return b.identity }

// Boot identifies this run of the process; Envelope carries it.
func (b *Bus) Boot() string { return b.boot }

// Durability is "", or the one sentence that says why power loss may lose accepted work.
func (b *Bus) Durability() string { return b.durability }

// ListenURL is where NATS clients connect, workers that join and callers; "" where none may.
func (b *Bus) ListenURL() string {
	if b.cfg.Listen == "" {
		return ""
	}
	return "nats://" + b.srv.Addr().String()
}

// Roster says which workers may join; nil where none may.
func (b *Bus) Roster() *Roster { return b.roster }

// Callers says who may call functions over NATS; nil where nobody may.
func (b *Bus) Callers() *Callers { return b.callers }

// DataDir is the data directory.
func (b *Bus) DataDir() string { return b.cfg.DataDir }

// Conn is the process's connection.
func (b *Bus) Conn() *nats.Conn { return b.nc }

// JetStream is the process's JetStream context.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Invocations is the stream of waiting and scheduled invocations.
func (b *Bus) Invocations() jetstream.Stream { return b.stores.invocations }

// Dead is the stream of dead letters.
func (b *Bus) Dead() jetstream.Stream { return b.stores.dead }

// Keys holds the records of idempotency keys, by the key's hash.
func (b *Bus) Keys() *Keys { return &Keys{b, b.stores.keys} }

// Functions holds the functions, by FunctionKey.
func (b *Bus) Functions() *Table[functions.Function] { return b.functions }

// Revisions holds the revisions, by RevisionKey.
func (b *Bus) Revisions() *Table[functions.Revision] { return b.revisions }

// Quotas holds the quotas, by QuotaKey.
func (b *Bus) Quotas() *Table[functions.Quota] { return b.quotas }

// Nodes holds what operators want of nodes, by NodeKey.
func (b *Bus) Nodes() *Table[functions.NodeSettings] { return b.nodes }

// IdleTimes holds when functions were idle, by FunctionKey.
func (b *Bus) IdleTimes() *Table[functions.IdleTimes] { return b.idleTimes }

// Triggers holds the triggers, by TriggerKey.
func (b *Bus) Triggers() *Table[functions.Trigger] { return b.triggers }

// TriggerStates holds what triggers have to remember, by TriggerKey.
func (b *Bus) TriggerStates() *Table[functions.TriggerState] { return b.states }

// Results holds the terminal records, by ResultKey; they expire.
func (b *Bus) Results() *Table[functions.Result] { return b.results }

// Artifacts holds OCI blobs, by digest.
func (b *Bus) Artifacts() *Objects { return b.artifacts }

// Bodies holds large bodies, by BodyObject.
func (b *Bus) Bodies() *Objects { return b.bodies }

// Barrier returns when everything that was acknowledged on the streams before the call is on disk. Callers share syncs: whoever comes
// during one waits for the next. After a failed sync it fails for ever, with unavailable; see Failed. In a cluster what is acknowledged is held
// by most of the servers, and there is nothing to wait for.
func (b *Bus) Barrier(ctx context.Context, streams ...string) error {
	if b.barrier == nil {
		return b.failure.get()
	}
	return b.barrier.wait(ctx, streams)
}

// BarrierRemovals is Barrier for what was removed from a stream: the server leaves no mark of the last message of a block but that the block's file is gone.
func (b *Bus) BarrierRemovals(ctx context.Context, stream string) error {
	if err := b.Barrier(ctx, stream); err != nil || b.barrier == nil {
		return err
	}
	if err := syncPath(filepath.Join(b.cfg.streamsDir(), stream, "msgs")); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "waiting until what was removed is gone on disk")
	}
	return nil
}

// BarrierThen is Barrier for whoever does not wait: then is called once with the error, if there is one, and must not wait.
func (b *Bus) BarrierThen(then func(error), streams ...string) {
	if b.barrier == nil {
		then(b.failure.get())
		return
	}
	b.barrier.then(then, streams)
}

// Failed is closed when a sync failed, or a write of the server: nothing may be accepted any more, and only a new process can tell what
// is on disk.
func (b *Bus) Failed() <-chan struct{} { return b.failure.ch }

// Failure is why the store failed; nil while it works.
func (b *Bus) Failure() error { return b.failure.get() }
