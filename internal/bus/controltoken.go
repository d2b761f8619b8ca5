package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// controlTokenKey is a key of BucketMembers.
const controlTokenKey = "control-token"

// purposeControl is that of the secret from which the first servers of a cluster have their token.
const purposeControl = "control token"

// controlToken is the record of the control API's token that the servers of a cluster have in common.
type controlToken struct {
	Schema int    `json:"schema"`
	Token  string `json:"token"`
}

// ControlToken is the token of the control API that the servers of the cluster have in common. Before any of them has shared its own it follows from the
// cluster's authority.
func (b *Bus) ControlToken(ctx context.Context) (string, error) {
	kv, err := b.members()
	if err != nil {
		return "", err
	}
	e, err := Patiently(ctx, b, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return kv.Get(ctx, controlTokenKey) })
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return b.authority.authority().Secret(purposeControl)
	}
	if err != nil {
		return "", b.storeFault(err, "reading the control API's token")
	}
	return controlTokenIn(e)
}

func controlTokenIn(e jetstream.KeyValueEntry) (string, error) {
	t, err := Decode[controlToken](e.Value())
	return t.Token, err
}

// ShareControlToken has every server of the cluster take the token.
func (b *Bus) ShareControlToken(ctx context.Context, token string) error {
	kv, err := b.members()
	if err != nil {
		return err
	}
	data, err := json.Marshal(controlToken{Schema: Schema, Token: token})
	if err != nil {
		return fmt.Errorf("encoding the control API's token: %w", err)
	}
	_, err = Patiently(ctx, b, func(ctx context.Context) (uint64, error) { return kv.Put(ctx, controlTokenKey, data) })
	if err != nil {
		return b.storeFault(err, "sharing the control API's token")
	}
	return nil
}

// FollowControlToken calls fn with the token that the servers have in common, now and whenever it changes, until ctx ends. Where they have none yet it is
// this server's own.
func (b *Bus) FollowControlToken(ctx context.Context, own string, fn func(token string) error) error {
	kv, err := b.members()
	if err != nil {
		return err
	}
	data, err := json.Marshal(controlToken{Schema: Schema, Token: own})
	if err != nil {
		return fmt.Errorf("encoding the control API's token: %w", err)
	}
	_, err = Patiently(ctx, b, func(ctx context.Context) (uint64, error) { return kv.Create(ctx, controlTokenKey, data) })
	if err != nil && !IsConflict(err) && !errors.Is(err, jetstream.ErrKeyExists) && ctx.Err() == nil {
		b.log.Warn("the control API's token is not shared; the next server that starts shares its own", "err", err)
	}
	for ctx.Err() == nil {
		w, err := b.watch(ctx, kv, controlTokenKey)
		if err == nil {
			b.hearControlToken(ctx, w, fn)
			_ = w.Stop()
		}
		select {
		case <-time.After(leadRenew):
		case <-ctx.Done():
		}
	}
	return nil
}

// hearControlToken calls fn with each token that a watch tells of, until it or ctx ends.
func (b *Bus) hearControlToken(ctx context.Context, w jetstream.KeyWatcher, fn func(token string) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Updates():
			if !ok {
				return
			}
			if e == nil || e.Operation() != jetstream.KeyValuePut {
				continue
			}
			token, err := controlTokenIn(e)
			if err == nil {
				err = fn(token)
			}
			if err != nil {
				b.log.Error("the control API's token cannot be taken over", "err", err)
			}
		}
	}
}

// members is the bucket of what the servers have in common of those who connect.
func (b *Bus) members() (jetstream.KeyValue, error) {
	if kv := b.stores.buckets[BucketMembers]; kv != nil {
		return kv, nil
	}
	return nil, errAlone()
}
