package trigger_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// A trigger whose topic is missing says so, and no longer once the topic is there, even if nothing comes from it.
func TestATriggerWithoutItsTopic(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	w := start(t)
	w.path.deploy("f", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w.set(functions.Trigger{Name: "orders", Function: "f", Kafka: &functions.KafkaSource{Brokers: broker.ListenAddrs(), Topic: "orders"}})
	is := func(state, reason string) {
		t.Helper()
		var got v1.TriggerStatus
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if got, _ = w.hub.Status(functions.Ref{Namespace: "default", Name: "orders"}); got.State == state && strings.Contains(got.Reason, reason) {
				return
			}
		}
		t.Fatalf("%+v, want %s: %s", got, state, reason)
	}
	is("failing", "looking for the topic orders")
	admin, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "orders", 1, 1
	req.Topics = append(req.Topics, topic)
	if _, err := req.RequestWith(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	is("active", "")
}

// The invocations of a partition run one after the other, in its order, those that are tried again included; those of two run side by side.
func TestAPartitionRunsInItsOrder(t *testing.T) {
	t.Parallel()
	const partitions, each = 2, 20
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	w := start(t)
	var mu sync.Mutex
	running, next := map[string]int{}, map[string]int{}
	both := make(chan struct{})
	done := make(chan struct{}, partitions*each)
	w.path.deploy("f", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p, offset := r.Header.Get("Ce-Kafkapartition"), r.Header.Get("Ce-Kafkaoffset")
		mu.Lock()
		running[p]++
		if running[p] > 1 {
			t.Errorf("two of partition %s run at once", p)
		}
		if want := fmt.Sprint(next[p]); offset != want {
			t.Errorf("partition %s: %s runs, want %s", p, offset, want)
		}
		// One of each partition fails at first: what is behind it waits.
		failed := next[p] == 5 && r.Header.Get("Tatami-Attempt") == "1"
		if !failed {
			next[p]++
		}
		if offset == "0" && len(running) == partitions {
			close(both)
		}
		mu.Unlock()
		if offset == "0" {
			select {
			case <-both:
			case <-time.After(time.Minute):
				t.Error("the partitions do not run side by side")
			}
		}
		mu.Lock()
		running[p]--
		mu.Unlock()
		if failed {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		done <- struct{}{}
	}))
	w.set(functions.Trigger{Name: "orders", Function: "f", Kafka: &functions.KafkaSource{Brokers: broker.ListenAddrs(), Topic: "orders", Start: functions.StartEarliest}})
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for n := range partitions * each {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: int32(n % partitions), Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for range partitions * each {
		mustGet(t, done)
	}
}
