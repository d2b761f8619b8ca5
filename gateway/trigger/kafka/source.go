package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/source"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// pollRecords is how many records are in hand at most.
	pollRecords = 500
	// fetchBytes bounds what is fetched ahead, in bytes.
	fetchBytes = 8 << 20
	// commitTime bounds a commit.
	commitTime = 10 * time.Second
	// reachTime bounds the first contact with the brokers.
	reachTime = 20 * time.Second
)

// Source takes the records of a trigger's topic in.
type Source struct {
	trigger functions.Trigger
	sink    source.Sink
	log     *slog.Logger

	mu   sync.Mutex
	lags map[int32]int64
}

// New makes the source of a trigger that has one.
func New(t functions.Trigger, sink source.Sink, log *slog.Logger) *Source {
	return &Source{trigger: t, sink: sink, log: log, lags: map[int32]int64{}}
}

// Run hands records over until ctx ends, and returns nil then. It leaves the group, and what was polled and not handed over is for the next member.
func (s *Source) Run(ctx context.Context) error {
	opts, err := options(&s.trigger)
	if err != nil {
		return err
	}
	c, err := kgo.NewClient(append(opts, kgo.OnPartitionsRevoked(s.lost), kgo.OnPartitionsLost(s.lost))...)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidSpec, err, "making a client of Kafka").WithField("kafka")
	}
	defer c.CloseAllowingRebalance()
	if err := s.reach(ctx, c); err != nil {
		return err
	}
	for {
		fetches := c.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil {
			return nil
		}
		if err := firstError(fetches); err != nil {
			return fault.Wrap(fault.CodeUnavailable, err, "reading the topic %s", s.trigger.Kafka.Topic)
		}
		if !s.handOver(ctx, fetches) {
			return nil
		}
		if err := s.commit(ctx, c, fetches); err != nil {
			return err
		}
		c.AllowRebalance()
	}
}

// reach finds out whether the brokers let the source in, and have its topic: the client itself would try for a long time before it told.
func (s *Source) reach(ctx context.Context, c *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	k := s.trigger.Kafka
	if err := c.Ping(ctx); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "reaching Kafka at %s", strings.Join(k.Brokers, ", "))
	}
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(k.Topic)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, c)
	for n := 0; err == nil && n < len(resp.Topics); n++ {
		err = kerr.ErrorForCode(resp.Topics[n].ErrorCode)
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "looking for the topic %s", k.Topic)
	}
	s.sink.Reached()
	return nil
}

func firstError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if e.Err != nil {
			return e.Err
		}
	}
	return nil
}

// handOver hands everything over that was polled: the partitions side by side, each in its order. False: ctx ended before that.
func (s *Source) handOver(ctx context.Context, fetches kgo.Fetches) bool {
	var work sync.WaitGroup
	var cut atomic.Bool
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		work.Go(func() {
			for _, r := range p.Records {
				if !s.insist(ctx, r) {
					cut.Store(true)
					return
				}
				s.noteLag(p.Partition, p.HighWatermark-r.Offset-1)
			}
		})
	})
	work.Wait()
	return !cut.Load()
}

// insist hands one record over, however long that takes, and lets one go that can never be an invocation. False: ctx ended before that.
func (s *Source) insist(ctx context.Context, r *kgo.Record) bool {
	ev := EventOf(r)
	log := s.log.With("trigger", s.trigger.ID().String())
	order := strconv.Itoa(int(r.Partition))
	if s.trigger.Kafka.Unordered {
		order = ""
	}
	err := source.Insist(ctx, s.sink, &ev, order, log, func() {})
	if err == nil {
		return true
	}
	if fault.KindOf(err) != fault.Invalid {
		return false
	}
	log.Error("a record is let go: it can be no invocation", "event", ev.ID, "err", err)
	return true
}

// commit tells the group how far everything that was polled has come; it is durable by now, so this is done at the end, too.
func (s *Source) commit(ctx context.Context, c *kgo.Client, fetches kgo.Fetches) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	if err := c.CommitRecords(ctx, fetches.Records()...); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "committing to the group %s", groupOf(&s.trigger))
	}
	return nil
}

func (s *Source) noteLag(partition int32, n int64) {
	s.mu.Lock()
	s.lags[partition] = max(n, 0)
	s.tellLag()
	s.mu.Unlock()
}

// lost forgets partitions that are another member's now.
func (s *Source) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range gone[s.trigger.Kafka.Topic] {
		delete(s.lags, p)
	}
	s.tellLag()
}

// tellLag is called under the lock.
func (s *Source) tellLag() {
	var sum int64
	for n := range maps.Values(s.lags) {
		sum += n
	}
	s.sink.Lag(sum)
}

// groupOf is the consumer group of a trigger.
func groupOf(t *functions.Trigger) string {
	if t.Kafka.Group != "" {
		return t.Kafka.Group
	}
	return fmt.Sprintf("tatami.%s.%s", t.Namespace, t.Name)
}
