package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// layout is every stream and bucket of the product with its configuration. It is a format that stays.
type layout struct {
	Streams []jetstream.StreamConfig
	Buckets []jetstream.KeyValueConfig
	Objects []jetstream.ObjectStoreConfig
}

// dedupeWindow is how long the work queue knows the ids of what it took: long enough for a publish to be repeated after a failure.
const dedupeWindow = 2 * time.Minute

func layoutOf(c Config) layout {
	l := layout{
		Streams: []jetstream.StreamConfig{
			{
				Name:              StreamInvocations,
				Description:       "invocations that wait, and those scheduled for a time",
				Subjects:          []string{subjectInvocations + ".>", subjectScheduled + ".>"},
				Retention:         jetstream.WorkQueuePolicy,
				Storage:           jetstream.FileStorage,
				Duplicates:        dedupeWindow,
				Replicas:          1,
				AllowDirect:       true,
				AllowMsgSchedules: true,
			},
			{
				Name:        StreamDead,
				Description: "dead letters",
				Subjects:    []string{subjectDead + ".>"},
				Retention:   jetstream.LimitsPolicy,
				Discard:     jetstream.DiscardOld,
				Storage:     jetstream.FileStorage,
				MaxAge:      c.DeadTTL,
				MaxBytes:    min(maxDeadBytes, c.MaxStore/8),
				Duplicates:  dedupeWindow,
				Replicas:    1,
				AllowDirect: true,
			},
			{
				Name:              StreamKeys,
				Description:       "records of idempotency keys",
				Subjects:          []string{subjectKeys + ".>"},
				Retention:         jetstream.LimitsPolicy,
				Discard:           jetstream.DiscardOld,
				Storage:           jetstream.FileStorage,
				MaxMsgsPerSubject: 1,
				AllowMsgTTL:       true,
				Replicas:          1,
				AllowDirect:       true,
			},
		},
		Buckets: []jetstream.KeyValueConfig{
			{Bucket: BucketFunctions, Description: "functions", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketRevisions, Description: "revisions", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketQuotas, Description: "quotas", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketNodes, Description: "what operators want of nodes", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketIdleTimes, Description: "when functions were idle", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketTriggers, Description: "triggers", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketTriggerStates, Description: "what triggers have to remember", History: 1, Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: BucketResults, Description: "terminal records of invocations", History: 1, TTL: c.ResultTTL,
				Storage: jetstream.FileStorage, Replicas: 1},
		},
		Objects: []jetstream.ObjectStoreConfig{
			{Bucket: ObjectsArtifacts, Description: "OCI blobs by digest", Storage: jetstream.FileStorage, Replicas: 1},
			{Bucket: ObjectsBodies, Description: "large bodies of invocations and results", Storage: jetstream.FileStorage, Replicas: 1},
		},
	}
	if c.Cluster != nil {
		return l.replicated(len(c.Cluster.Peers))
	}
	return l
}

// Names of the streams behind buckets, as the server has them.
func bucketStream(bucket string) string { return "KV_" + bucket }

func objectStream(bucket string) string { return "OBJ_" + bucket }

// names lists the streams of the layout.
func (l layout) names() []string {
	var out []string
	for _, s := range l.Streams {
		out = append(out, s.Name)
	}
	for _, b := range l.Buckets {
		out = append(out, bucketStream(b.Bucket))
	}
	for _, o := range l.Objects {
		out = append(out, objectStream(o.Bucket))
	}
	return out
}

// latest are the streams that hold one message of a subject, the newest.
func (l layout) latest() map[string]bool {
	out := map[string]bool{}
	for _, s := range l.Streams {
		if s.MaxMsgsPerSubject == 1 {
			out[s.Name] = true
		}
	}
	for _, b := range l.Buckets {
		if b.History == 1 {
			out[bucketStream(b.Bucket)] = true
		}
	}
	return out
}

// stores are the open handles of the layout.
type stores struct {
	invocations, dead, keys jetstream.Stream
	buckets                 map[string]jetstream.KeyValue
	objects                 map[string]objectBucket
}

// objectBucket is a bucket of objects, and the stream behind it.
type objectBucket struct {
	store  jetstream.ObjectStore
	stream jetstream.Stream
}

func newStores() stores {
	return stores{buckets: map[string]jetstream.KeyValue{}, objects: map[string]objectBucket{}}
}

func (s *stores) put(name string, st jetstream.Stream) {
	switch name {
	case StreamInvocations:
		s.invocations = st
	case StreamDead:
		s.dead = st
	case StreamKeys:
		s.keys = st
	}
}

// ensure makes every stream and bucket, or brings its configuration up to date.
func (l layout) ensure(ctx context.Context, js jetstream.JetStream) (stores, error) {
	s := newStores()
	for _, c := range l.Streams {
		st, err := js.CreateOrUpdateStream(ctx, c)
		if err != nil {
			return stores{}, fmt.Errorf("making stream %s: %w", c.Name, err)
		}
		s.put(c.Name, st)
	}
	for _, c := range l.Buckets {
		kv, err := js.CreateOrUpdateKeyValue(ctx, c)
		if err != nil {
			return stores{}, fmt.Errorf("making bucket %s: %w", c.Bucket, err)
		}
		s.buckets[c.Bucket] = kv
	}
	for _, c := range l.Objects {
		o, err := js.CreateOrUpdateObjectStore(ctx, c)
		if err != nil {
			return stores{}, fmt.Errorf("making object bucket %s: %w", c.Bucket, err)
		}
		st, err := js.Stream(ctx, objectStream(c.Bucket))
		if err != nil {
			return stores{}, fmt.Errorf("opening object bucket %s: %w", c.Bucket, err)
		}
		s.objects[c.Bucket] = objectBucket{o, st}
	}
	return s, nil
}
