package bus

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/tatami-faas/tatami/internal/fault"
)

// storeDir is the directory that the server makes in its store directory.
const storeDir = "jetstream"

// readyTimeout bounds the recovery of the store at start: a long backlog is read from disk.
const readyTimeout = 5 * time.Minute

// readyLook is how often somebody who waits for that looks whether it is still wanted.
const readyLook = 250 * time.Millisecond

// handshakePatience is how long a worker may take to show its certificate.
const handshakePatience = 10 * time.Second

// passwords are made anew at every start: nothing outside this process uses them.
type passwords struct{ system, tatami string }

func newPasswords() passwords { return passwords{newSecret(), newSecret()} }

// configText is the server's configuration. Accounts given in text keep JetStream over a restart; accounts made by code lose it.
func configText(id Identity, c Config, p passwords) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\n", strconv.Quote(id.ServerName))
	fmt.Fprintf(&b, "max_payload: %d\n", maxPayload)
	if c.Listen != "" {
		fmt.Fprintf(&b, "listen: %s\n", strconv.Quote(c.Listen))
	}
	b.WriteString("jetstream {\n")
	fmt.Fprintf(&b, "  store_dir: %s\n", strconv.Quote(c.DataDir))
	fmt.Fprintf(&b, "  max_file_store: %d\n", c.MaxStore)
	fmt.Fprintf(&b, "  max_memory_store: %d\n", int64(256<<20))
	fmt.Fprintf(&b, "  sync_interval: %s\n", strconv.Quote(c.SyncInterval.String()))
	b.WriteString("  limits { default_max_consumers: -1 }\n}\n")
	fmt.Fprintf(&b, "accounts {\n  %s {\n    users: [ { user: \"system\", password: %s } ]\n  }\n",
		AccountSystem, strconv.Quote(p.system))
	fmt.Fprintf(&b, "  %s {\n    jetstream: enabled\n    users: [ { user: \"tatami\", password: %s } ]\n    %s\n  }\n}\n",
		AccountTatami, strconv.Quote(p.tatami), exports)
	fmt.Fprintf(&b, "system_account: %s\n", AccountSystem)
	if c.Cluster != nil {
		b.WriteString(c.Cluster.text())
	}
	return b.String()
}

// startServer starts the embedded server, without any listener unless clients may connect. The doorman decides who is let in.
func startServer(ctx context.Context, id Identity, c Config, door *doorman, f *failure, log *slog.Logger) (*server.Server, error) {
	opts := &server.Options{}
	if err := opts.ProcessConfigString(configText(id, c, door.pass)); err != nil {
		return nil, fmt.Errorf("reading the server's configuration: %w", err)
	}
	opts.DontListen = c.Listen == ""
	if opts.Port == 0 {
		// The server takes 0 for its usual port.
		opts.Port = server.RANDOM_PORT
	}
	if door.keeper != nil {
		// Callers on this machine need no TLS; the doorman asks it of everybody else.
		opts.AllowNonTLS = true
		opts.TLSConfig, opts.TLSTimeout, opts.AuthTimeout = door.keeper.Ask(), handshakePatience.Seconds(), 2*handshakePatience.Seconds()
	}
	if c.Cluster != nil {
		joinCluster(opts, door)
	}
	opts.CustomClientAuthentication = door
	// Workers show that they hold a key by signing it.
	opts.AlwaysEnableNonce = true
	opts.NoSigs = true
	opts.NoSystemAccount = false
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("making the server: %w", err)
	}
	door.srv = srv
	srv.SetLoggerV2(serverLog{log, f, door}, false, false, false)
	srv.Start()
	if err := awaitReady(ctx, srv, door.died.Load); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fault.New(fault.CodeStorageFull, "the store in %s did not open", filepath.Join(c.DataDir, storeDir)).
			WithHint("the log has the reason; free disk space and start again")
	}
	return srv, nil
}

// awaitReady returns when the server takes connections. It does not go on when ctx has ended, or the server has: died tells its last words.
func awaitReady(ctx context.Context, srv *server.Server, died func() *string) error {
	for begun := time.Now(); !srv.ReadyForConnections(readyLook); {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last := died(); last != nil {
			return fault.New(fault.CodeStorageFull, "the store did not open: %s", *last).WithHint("free disk space, or mend what it tells of, and start again")
		}
		if time.Since(begun) > readyTimeout {
			return fmt.Errorf("the server is not ready after %s", readyTimeout)
		}
	}
	return nil
}

// connect makes an in-process connection to the account of the product.
func connect(srv *server.Server, p passwords, name string, log *slog.Logger) (*nats.Conn, error) {
	return connectAs(srv, userTatami, p.tatami, name, log)
}

// connectAs is connect as another user than the product's.
func connectAs(srv *server.Server, user, password, name string, log *slog.Logger) (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.Name(name),
		nats.UserInfo(user, password),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		// The pipe breaks only when the server stops: a publish fails then, and is not kept.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("bus connection", "subject", subject, "err", err)
		}))
	if err != nil {
		return nil, fmt.Errorf("connecting in process: %w", err)
	}
	return nc, nil
}

// serverLog hands the server's warnings and errors to slog, and takes note of writes that failed.
type serverLog struct {
	log     *slog.Logger
	failure *failure
	door    *doorman
}

// Noticef tells of one thing: that this server of a cluster leads a stream from now on.
func (l serverLog) Noticef(format string, v ...any) {
	if strings.HasPrefix(format, "JetStream cluster new stream leader") && len(v) == 2 {
		l.log.Info("this server leads a stream", "stream", v[1])
	}
}
func (l serverLog) Debugf(string, ...any) {}
func (l serverLog) Tracef(string, ...any) {}
func (l serverLog) Warnf(format string, v ...any) {
	// The passwords in the configuration live as long as the process, and are good within it only.
	// Servers check each other's certificates, if not as the server itself would. That the others are waited for is told by whoever waits, with their names.
	text := fmt.Sprintf(format, v...)
	for _, known := range []string{"Plaintext passwords", "Waiting for routing to be established", "TLS certificate chain and hostname of solicited routes"} {
		if strings.HasPrefix(text, known) {
			return
		}
	}
	l.log.Warn("nats-server", "text", text)
}
func (l serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if twin, tell := l.door.twins.overheard(text, time.Now()); twin {
		if tell {
			l.log.Error("another server of the cluster has this one's name: one of them is on a copy of the other's data directory; stop that one, and start it on an empty --data-dir")
		}
		return
	}
	l.log.Error("nats-server", "text", text)
	l.door.overheard(text)
	if err := writeFailure(text); err != nil && l.failure.set(err) {
		l.log.Error("a write failed, nothing is accepted any more", "err", err)
	}
}

func (l serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("nats-server", "text", text)
	l.door.died.Store(&text)
}
