package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// ImportFile is the name of the file in a server's data directory that says what the server is to bring into its cluster.
const ImportFile = "import.json"

// importFile names the data directory of a server that stood alone.
type importFile struct {
	Schema int    `json:"schema"`
	From   string `json:"from"`
}

// PrepareImport has the server of the cluster whose data directory is dir, and which has not run yet, bring in what the server that stood alone has
// stored in from. It returns the certificate authority of that server, for which the cluster's servers speak then, so that its workers stay.
// From is locked meanwhile, and not changed before everything in it is in the cluster.
func PrepareImport(from, dir string) (authority []byte, err error) {
	if from, err = filepath.Abs(from); err != nil {
		return nil, fmt.Errorf("finding the data directory: %w", err)
	}
	if _, err := os.Stat(from); err != nil {
		return nil, fault.Wrap(fault.CodeNotFound, err, "%s is not the data directory of a server that stood alone", from).WithField("from").
			WithHint("give the --data-dir of tatami up")
	}
	lock, err := lockDir(from, ModeStandalone)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(from, IdentityFile)); err != nil {
		return nil, fault.Wrap(fault.CodeNotFound, err, "%s is not the data directory of a server that stood alone", from).WithField("from").
			WithHint("give the --data-dir of tatami up")
	}
	if _, err := loadIdentity(from, ModeStandalone, "", time.Now()); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, IdentityFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.CodeConflict, "%s is in use already", dir).WithField("data-dir").WithHint("give a directory of which no server has run yet")
	}
	a, err := openAuthority(from, false, newAudit(from, slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	if authority, err = a.now.Encode(); err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	data, err := json.Marshal(importFile{Schema: Schema, From: from})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	if err := writeDurably(dir, ImportFile, append(data, '\n')); err != nil {
		return nil, fmt.Errorf("writing what is to be brought in: %w", err)
	}
	return authority, nil
}

// takeImport brings in what PrepareImport asked for. What was brought in before an interruption is not stored twice.
func (b *Bus) takeImport(ctx context.Context) error {
	path := filepath.Join(b.cfg.DataDir, ImportFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what is to be brought in: %w", err)
	}
	f, err := Decode[importFile](data)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if moved(f.From) {
		return os.Remove(path)
	}
	b.log.Info("bringing in what a server that stood alone has stored", "from", f.From)
	old, err := Open(ctx, Config{DataDir: f.From, MaxStore: b.cfg.MaxStore, ResultTTL: b.cfg.ResultTTL}, b.log.With("store", "old"))
	if err != nil {
		return fmt.Errorf("opening %s: %w", f.From, err)
	}
	m := &migration{from: old, to: b, log: b.log}
	if err = m.run(ctx); err == nil {
		err = m.copyMembers(ctx)
	}
	if err == nil {
		id := old.identity
		id.Mode, id.Cluster = ModeMoved, b.cfg.Cluster.Name
		err = id.write(f.From)
	}
	if cerr := old.Close(ctx); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("bringing in %s: %w", f.From, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("noting that %s is brought in: %w", f.From, err)
	}
	b.log.Info("everything is brought in", "from", f.From, "records", m.stored, "objects", m.objects)
	// Whoever leads has looked at the queue before.
	return b.depose(ctx)
}

// moved reports whether everything in a data directory is in a cluster already.
func moved(dir string) bool {
	var id Identity
	data, err := os.ReadFile(filepath.Join(dir, IdentityFile))
	return err == nil && json.Unmarshal(data, &id) == nil && id.Mode == ModeMoved
}

// depose has whoever leads begin anew.
func (b *Bus) depose(ctx context.Context) error {
	err := b.stores.buckets[BucketLead].Delete(ctx, leadKey)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("having the cluster led anew: %w", err)
	}
	return nil
}

// migration copies a store into another one.
type migration struct {
	from, to        *Bus
	log             *slog.Logger
	stored, objects int
}

func (m *migration) run(ctx context.Context) error {
	// What others refer to comes first: artifacts before revisions, those before functions, bodies before invocations.
	for _, pair := range [][2]*Objects{{m.from.artifacts, m.to.artifacts}, {m.from.bodies, m.to.bodies}} {
		if err := m.copyObjects(ctx, pair[0], pair[1]); err != nil {
			return err
		}
	}
	streams := []string{bucketStream(BucketRevisions)}
	for _, bucket := range m.alone().Buckets {
		if name := bucketStream(bucket.Bucket); name != streams[0] {
			streams = append(streams, name)
		}
	}
	for _, stream := range append(streams, StreamKeys, StreamDead, StreamInvocations) {
		if err := m.copyStream(ctx, stream); err != nil {
			return err
		}
	}
	return nil
}

// alone is the layout of the one of the two that stands alone: what a cluster has besides is about its servers.
func (m *migration) alone() layout {
	if m.from.cfg.Cluster == nil {
		return layoutOf(m.from.cfg)
	}
	return layoutOf(m.to.cfg)
}

func (m *migration) copyObjects(ctx context.Context, from, to *Objects) error {
	all, err := from.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if there, err := to.Has(ctx, o.Name); err != nil || there {
			if err != nil {
				return err
			}
			continue
		}
		r, _, err := from.Open(ctx, o.Name)
		if err != nil {
			return err
		}
		_, err = to.Put(ctx, o.Name, r)
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		m.objects++
	}
	return nil
}

// copyStream copies the messages of a stream in their order, each unless there is one of its subject already.
func (m *migration) copyStream(ctx context.Context, name string) error {
	st, err := m.from.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	begun, before := time.Now(), m.stored
	for seq := uint64(1); ; {
		msg, err := st.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		seq = msg.Sequence + 1
		if op := msg.Header.Get("KV-Operation"); op != "" {
			continue
		}
		if err := m.store(ctx, msg); err != nil {
			return fmt.Errorf("storing %s of %s: %w", msg.Subject, name, err)
		}
	}
	m.log.Debug("brought in", "stream", name, "records", m.stored-before, "dur_ms", time.Since(begun).Milliseconds())
	return nil
}

// storeTries is how often a message is stored while the cluster elects.
const storeTries = 30

func (m *migration) store(ctx context.Context, msg *jetstream.RawStreamMsg) error {
	out := &nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: nats.Header{}}
	for k, v := range msg.Header {
		if !strings.HasPrefix(k, "Nats-Expected-") {
			out.Header[k] = slices.Clone(v)
		}
	}
	out.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	for try := 1; ; try++ {
		_, err := m.to.Store(ctx, out)
		switch {
		case err == nil:
			m.stored++
			return nil
		case IsConflict(err):
			return nil
		case try == storeTries || ctx.Err() != nil:
			return err
		}
		select {
		case <-time.After(formRetry):
		case <-ctx.Done():
		}
	}
}

// copyMembers has the workers that joined the one server, and those who might call at it, be those of the cluster, unless it has any.
func (m *migration) copyMembers(ctx context.Context) error {
	if err := copyMembers(ctx, m, RosterFile, rosterKey, parseRoster); err != nil {
		return err
	}
	return copyMembers(ctx, m, CallersFile, callersKey, parseCallers)
}

func copyMembers[T any](ctx context.Context, m *migration, name, key string, parse func(path string, data []byte) (T, error)) error {
	data, err := os.ReadFile(filepath.Join(m.from.cfg.DataDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	f, err := parse(name, data)
	if err != nil {
		return err
	}
	if data, err = json.Marshal(f); err != nil {
		return err
	}
	if _, err = m.to.stores.buckets[BucketMembers].Create(ctx, key, data); err != nil && !IsConflict(err) {
		return fmt.Errorf("storing what was in %s: %w", name, err)
	}
	return nil
}
