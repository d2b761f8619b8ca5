package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// movedKey is a key of BucketMembers.
const movedKey = "moved"

// movedTo is the record that says where everything that a cluster had stored is now.
type movedTo struct {
	Schema int       `json:"schema"`
	To     string    `json:"to"`
	At     time.Time `json:"at"`
}

// Exported says what Export has copied.
type Exported struct{ Records, Objects int }

// Export copies everything that the cluster has stored into a new data directory of a server that stands alone, with those who may connect, and has no
// server of the cluster lead any more. Meanwhile nobody leads, so that nothing is accepted. Also are files of the own data directory that go along. Where it
// fails, the cluster goes on. To must not be there, or be empty; host is its machine, for people.
func (b *Bus) Export(ctx context.Context, host, to string, also ...string) (done Exported, err error) {
	kv := b.stores.buckets[BucketLead]
	if kv == nil {
		return done, errAlone()
	}
	if to, err = filepath.Abs(to); err != nil {
		return done, fmt.Errorf("finding the data directory: %w", err)
	}
	if err := checkNoData(to); err != nil {
		return done, err
	}
	value, err := json.Marshal(Leader{Schema: Schema, Server: b.identity.ServerName, Boot: b.boot})
	if err != nil {
		return done, err
	}
	c := &candidate{bus: b, kv: kv, value: value}
	epoch, err := c.seize(ctx)
	if err != nil {
		return done, err
	}
	where := to + " of " + host
	if c.last, err = json.Marshal(Leader{Schema: Schema, Server: b.identity.ServerName, Boot: b.boot, Moved: where}); err != nil {
		return done, err
	}
	err = c.serve(ctx, epoch, func(ctx context.Context, epoch uint64) error {
		// Whoever led until now has stopped by the time at which its key would have ended.
		select {
		case <-time.After(leadTTL):
		case <-ctx.Done():
			return ctx.Err()
		}
		done, err = b.export(ctx, exporting{where: where, to: to, also: also, epoch: epoch})
		return err
	})
	if err != nil {
		return done, fmt.Errorf("moving the cluster to %s: %w", to, err)
	}
	return done, nil
}

// checkNoData refuses a directory in which something lies.
func checkNoData(dir string) error {
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		return fault.New(fault.CodeConflict, "%s is in use already", dir).WithField("to").WithHint("name a directory that is not there, or move that one away")
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.CodeInvalidRequest, err, "%s cannot be read", dir).WithField("to")
	}
	return nil
}

// exporting is what is to be done: into the directory to, which is where for people, by who has led since an epoch.
type exporting struct {
	where, to string
	also      []string
	epoch     uint64
}

func (b *Bus) export(ctx context.Context, x exporting) (done Exported, err error) {
	to := x.to
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return done, fault.Wrap(fault.CodeInvalidRequest, err, "%s cannot be made", to).WithField("to")
	}
	// It gets its name when it is whole: nobody is to start on half of it.
	part, err := os.MkdirTemp(filepath.Dir(to), ".tatami-export-*")
	if err != nil {
		return done, fault.Wrap(fault.CodeInvalidRequest, err, "%s cannot be made", to).WithField("to")
	}
	defer os.RemoveAll(part)
	alone, err := Open(ctx, Config{DataDir: part, MaxStore: b.cfg.MaxStore, ResultTTL: b.cfg.ResultTTL}, b.log.With("store", "new"))
	if err != nil {
		return done, fmt.Errorf("opening a store in %s: %w", part, err)
	}
	m := &migration{from: b, to: alone, log: b.log}
	if err = m.run(ctx); err == nil {
		err = alone.Barrier(ctx, layoutOf(alone.cfg).names()...)
	}
	if cerr := alone.Close(context.WithoutCancel(ctx)); err == nil {
		err = cerr
	}
	if err == nil {
		id := alone.identity
		id.Epoch = x.epoch + 1
		err = id.write(part)
	}
	if err == nil {
		err = b.exportMembers(part, x.also)
	}
	if err == nil {
		err = syncFilesystem(part)
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err == nil {
		err = syncPath(filepath.Dir(to))
	}
	if err != nil {
		return done, fmt.Errorf("copying what the cluster has stored to %s: %w", to, err)
	}
	return Exported{m.stored, m.objects}, b.markMoved(ctx, x.where, to)
}

// exportMembers has those who may connect to the cluster be those of the directory, whose authority is the cluster's.
func (b *Bus) exportMembers(dir string, also []string) error {
	for _, write := range []func(string) error{b.authority.writeTo, b.roster.writeTo, b.callers.writeTo} {
		if err := write(dir); err != nil {
			return err
		}
	}
	for _, name := range also {
		data, err := os.ReadFile(filepath.Join(b.cfg.DataDir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = writeDurably(dir, name, data)
		}
		if err != nil {
			return fmt.Errorf("copying %s: %w", name, err)
		}
	}
	return nil
}

// markMoved has no server of the cluster start any more.
func (b *Bus) markMoved(ctx context.Context, where, to string) error {
	kv, err := b.members()
	if err != nil {
		return err
	}
	data, err := json.Marshal(movedTo{Schema: Schema, To: where, At: time.Now().UTC()})
	if err != nil {
		return err
	}
	if _, err := Patiently(ctx, b, func(ctx context.Context) (uint64, error) { return kv.Put(ctx, movedKey, data) }); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "the servers of the cluster cannot be told that it has moved").
			WithHint("remove %s, and try again; or stop the servers of the cluster, and go on with it", to)
	}
	return nil
}

// checkMoved refuses to go on with a cluster of which everything is elsewhere.
func (b *Bus) checkMoved(ctx context.Context) error {
	kv, err := b.members()
	if err != nil {
		return err
	}
	e, err := Patiently(ctx, b, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return kv.Get(ctx, movedKey) })
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return b.storeFault(err, "reading whether the cluster has moved")
	}
	m, err := Decode[movedTo](e.Value())
	if err != nil {
		return err
	}
	return fault.New(fault.CodeConflict, "what the cluster %q holds is in %s since %s", b.cfg.Cluster.Name, m.To, m.At.Local().Format(time.DateTime)).
		WithHint("stop this server: tatami up runs with that now; a new cluster begins with tatami cluster init, on other data directories")
}

// seize makes this server the one that leads, whoever does now, and returns the revision that it got by that.
func (c *candidate) seize(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, electPatience)
	defer cancel()
	for {
		if rev := c.takeFrom(ctx); rev > 0 {
			return rev, nil
		}
		select {
		case <-time.After(formRetry):
		case <-ctx.Done():
			return 0, fault.New(fault.CodeUnavailable, "the lead of the cluster cannot be taken over").WithHint("look whether most of its servers run: tatami cluster ls")
		}
	}
}

// takeFrom takes the key from whoever has it; 0 where that did not work.
func (c *candidate) takeFrom(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, leadRenew)
	defer cancel()
	e, err := c.kv.Get(ctx, leadKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return c.ask(ctx)
	}
	if err != nil {
		return 0
	}
	rev, err := c.put(ctx, e.Revision())
	if err != nil && !c.own(ctx, &rev) {
		return 0
	}
	return rev
}

// put writes the key, which is to end by itself, if its revision is the given one.
func (c *candidate) put(ctx context.Context, rev uint64) (uint64, error) {
	return c.bus.Store(ctx, &nats.Msg{Subject: "$KV." + BucketLead + "." + leadKey, Data: c.value, Header: nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(rev, 10)},
		jetstream.MsgTTLHeader:              {strconv.Itoa(int(leadTTL / time.Second))},
	}})
}
