package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/kafka"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/certs"
)

const partitions = 3

// book keeps what is emitted, in order, and says when it has so many.
type book struct {
	mu     sync.Mutex
	events []functions.Event
	seen   map[string]bool
	lag    int64
	// reached counts how often the source got through.
	reached int
	// disorder lists events whose order was not that of their partition.
	disorder []string
	grown    chan struct{}
	// refuse, where set, is asked before an event is taken.
	refuse func(*functions.Event) error
	// unordered says that no event has an order.
	unordered bool
}

func newBook() *book { return &book{seen: map[string]bool{}, grown: make(chan struct{})} }

func (b *book) Emit(_ context.Context, ev *functions.Event, order string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(ev); err != nil {
			return err
		}
	}
	if want := ev.Extensions["kafkapartition"]; order != want && !b.unordered || b.unordered && order != "" {
		b.disorder = append(b.disorder, ev.ID+" in the order "+order)
	}
	b.events = append(b.events, *ev)
	b.seen[ev.ID] = true
	b.change()
	return nil
}

func (b *book) change() {
	close(b.grown)
	b.grown = make(chan struct{})
}

func (b *book) Reached() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reached++
	b.change()
}

func (b *book) Lag(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lag = n
	b.change()
}

// until waits until is reports true, which it is asked under the lock.
func (b *book) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		b.mu.Lock()
		done, grown := is(), b.grown
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, "orders")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// produce writes records n in from..to to the partition n mod partitions.
func produce(t *testing.T, c *kfake.Cluster, from, to int, opts ...kgo.Opt) {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for n := from; n < to; n++ {
		r := &kgo.Record{Topic: "orders", Partition: int32(n % partitions), Key: []byte("k"), Value: []byte(strconv.Itoa(n)),
			Headers: []kgo.RecordHeader{{Key: "Content-Type", Value: []byte("text/plain")}}}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func trigger(c *kfake.Cluster) functions.Trigger {
	return functions.Trigger{Namespace: "default", Name: "orders", Function: "f",
		Kafka: &functions.KafkaSource{Brokers: c.ListenAddrs(), Topic: "orders", Start: functions.StartEarliest}}.WithDefaults()
}

// run lets a source run, started again where it fails as the hub does it, until the returned function is called.
func run(t *testing.T, tr functions.Trigger, b *book) func() {
	t.Helper()
	if err := tr.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := kafka.New(tr, b, slog.New(slog.DiscardHandler)).Run(ctx); err != nil {
				t.Logf("Run: %v", err)
			}
		}
	}()
	return func() { stop(); <-done }
}

// inOrder reports records of a partition that came before an earlier one came first.
func (b *book) inOrder(t *testing.T) {
	t.Helper()
	if len(b.disorder) > 0 {
		t.Errorf("%q", b.disorder)
	}
	last := map[string]int{}
	first := map[string]bool{}
	for _, ev := range b.events {
		if first[ev.ID] {
			continue
		}
		first[ev.ID] = true
		p := ev.Extensions["kafkapartition"]
		n, _ := strconv.Atoi(string(ev.Data))
		if before, ok := last[p]; ok && n <= before {
			t.Errorf("partition %s: %d after %d", p, n, before)
		}
		last[p] = n
	}
}

func TestUnorderedRecordsHaveNoOrder(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	produce(t, c, 0, 9)
	tr := trigger(c)
	tr.Kafka.Unordered = true
	b := newBook()
	b.unordered = true
	stop := run(t, tr, b)
	b.until(t, "all records", func() bool { return len(b.seen) == 9 })
	stop()
	b.inOrder(t)
}

func TestRecordsBecomeEvents(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	produce(t, c, 0, 60)
	b := newBook()
	stop := run(t, trigger(c), b)
	b.until(t, "all records and no lag", func() bool { return len(b.seen) == 60 && b.lag == 0 })
	produce(t, c, 60, 90)
	b.until(t, "those that come later", func() bool { return len(b.seen) == 90 && b.lag == 0 })
	stop()
	b.inOrder(t)
	ev := b.events[0]
	if err := ev.Validate(); err != nil || len(b.events) != 90 {
		t.Errorf("%d events, %v", len(b.events), err)
	}
	p := ev.Extensions["kafkapartition"]
	if ev.ID != "orders/"+p+"/0" || ev.Source != "/kafka/orders" || ev.Type != kafka.Type || ev.Extensions["partitionkey"] != "k" || ev.DataContentType != "text/plain" || ev.Time.IsZero() {
		t.Errorf("%+v", ev)
	}
	// What was committed is not read again by the next of the group, and another group begins where it is told to.
	next := newBook()
	stop = run(t, trigger(c), next)
	produce(t, c, 90, 93)
	next.until(t, "the new ones", func() bool { return len(next.seen) == 3 })
	stop()
	latest := trigger(c)
	latest.Kafka.Group, latest.Kafka.Start = "late", functions.StartLatest
	late := newBook()
	stop = run(t, latest, late)
	// It joins at some time; what it sees first is no old record.
	for joined := false; !joined; {
		produce(t, c, 93, 96)
		late.mu.Lock()
		joined = len(late.seen) > 0
		late.mu.Unlock()
	}
	stop()
	for id := range late.seen {
		if offset, _ := strconv.Atoi(id[strings.LastIndex(id, "/")+1:]); offset < 31 {
			t.Errorf("%s is an old record", id)
		}
	}
}

// What is not durable is not committed: a source that ends in between leaves it to the next one.
func TestNothingIsCommittedBeforeItIsDurable(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	produce(t, c, 0, 30)
	first := newBook()
	tried := 0
	first.refuse = func(ev *functions.Event) error {
		if n, _ := strconv.Atoi(string(ev.Data)); n < 15 {
			return nil
		}
		tried++
		first.change()
		return fault.New(fault.CodeQueueFull, "full")
	}
	stop := run(t, trigger(c), first)
	first.until(t, "the first half, and a second try", func() bool { return len(first.seen) == 15 && tried > partitions })
	stop()
	second := newBook()
	stop = run(t, trigger(c), second)
	second.until(t, "the rest", func() bool {
		for n := 15; n < 30; n++ {
			if !second.seen[fmt.Sprintf("orders/%d/%d", n%partitions, n/partitions)] {
				return false
			}
		}
		return true
	})
	stop()
	second.inOrder(t)
}

// A record that can be no invocation is let go, and does not hold the others up.
func TestWhatCanBeNoInvocation(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	produce(t, c, 0, 9)
	b := newBook()
	b.refuse = func(ev *functions.Event) error {
		if string(ev.Data) == "4" {
			return fault.New(fault.CodeHeaderTooLarge, "no")
		}
		return nil
	}
	stop := run(t, trigger(c), b)
	b.until(t, "the others", func() bool { return len(b.seen) == 8 && b.lag == 0 })
	stop()
}

// Whatever of Kafka fails for a while, no record is lost and each partition keeps its order.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.OffsetCommit, kmsg.Fetch, kmsg.JoinGroup, kmsg.Heartbeat, kmsg.FindCoordinator, kmsg.OffsetFetch} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			produce(t, c, 0, 30)
			var failed int
			c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				if failed++; failed > 3 {
					return nil, nil, false
				}
				c.KeepControl()
				return nil, errors.New("the connection is cut"), true
			})
			b := newBook()
			stop := run(t, trigger(c), b)
			b.until(t, "all records", func() bool { return len(b.seen) == 30 })
			produce(t, c, 30, 45)
			b.until(t, "those after it", func() bool { return len(b.seen) == 45 && b.lag == 0 })
			stop()
			b.inOrder(t)
		})
	}
}

// Members of a group share the partitions, and what one leaves goes to the other.
func TestTwoMembers(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	b := newBook()
	stop, stopOther := run(t, trigger(c), b), run(t, trigger(c), b)
	produce(t, c, 0, 60)
	b.until(t, "all records", func() bool { return len(b.seen) == 60 })
	stop()
	produce(t, c, 60, 90)
	b.until(t, "those after one left", func() bool { return len(b.seen) == 90 })
	stopOther()
}

// A source that gets nothing says why, at once.
func TestASourceSaysWhyNothingComes(t *testing.T) {
	t.Parallel()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("lion\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open, closed := cluster(t), cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "hush"))
	for why, c := range map[string]struct {
		cluster *kfake.Cluster
		change  func(*functions.KafkaSource)
	}{
		"looking for the topic others":  {open, func(k *functions.KafkaSource) { k.Topic = "others" }},
		"reaching Kafka at 127.0.0.1:1": {open, func(k *functions.KafkaSource) { k.Brokers = []string{"127.0.0.1:1"} }},
		"reaching Kafka at " + closed.ListenAddrs()[0]: {closed, func(k *functions.KafkaSource) {
			k.SASL = &functions.KafkaSASL{Mechanism: functions.SASLPlain, User: "u", Password: functions.SecretRef{File: password}}
		}},
	} {
		tr, b := trigger(c.cluster), newBook()
		c.change(tr.Kafka)
		err := kafka.New(tr, b, slog.New(slog.DiscardHandler)).Run(t.Context())
		if !fault.Is(err, fault.CodeUnavailable) || !strings.Contains(err.Error(), why) || b.reached > 0 {
			t.Errorf("%v, want %s; reached %d times", err, why, b.reached)
		}
	}
	b := newBook()
	defer run(t, trigger(open), b)()
	b.until(t, "the brokers are reached", func() bool { return b.reached > 0 })
}

// The broker speaks TLS, with a password as well: records come, and nothing without the right certificate or password.
func TestTLSAndSASL(t *testing.T) {
	t.Parallel()
	pair := certs.New(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cluster(t, kfake.TLS(pair.Server), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", "hush"))
	produce(t, c, 0, 9, kgo.DialTLSConfig(pair.Client), kgo.SASL(scram.Auth{User: "u", Pass: "hush"}.AsSha256Mechanism()))
	good := trigger(c)
	good.Kafka.TLS, good.Kafka.CA = true, pair.File
	good.Kafka.SASL = &functions.KafkaSASL{Mechanism: functions.SASLScramSHA256, User: "u", Password: functions.SecretRef{File: password}}
	b := newBook()
	stop := run(t, good, b)
	b.until(t, "all records", func() bool { return len(b.seen) == 9 && b.lag == 0 })
	stop()
	for name, change := range map[string]func(*functions.KafkaSource){
		"no TLS":   func(k *functions.KafkaSource) { k.TLS, k.CA = false, "" },
		"no trust": func(k *functions.KafkaSource) { k.CA = "" },
		"no user":  func(k *functions.KafkaSource) { k.SASL = nil },
		"wrong user": func(k *functions.KafkaSource) {
			k.SASL = &functions.KafkaSASL{Mechanism: functions.SASLScramSHA256, User: "v", Password: k.SASL.Password}
		},
		"other proof": func(k *functions.KafkaSource) {
			k.SASL = &functions.KafkaSASL{Mechanism: functions.SASLPlain, User: "u", Password: k.SASL.Password}
		},
	} {
		tr, k := good, *good.Kafka
		change(&k)
		tr.Kafka = &k
		opts, err := kafka.Options(&tr)
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(opts, kgo.DialTimeout(2*time.Second), kgo.RequestRetries(1))...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := cl.Ping(ctx); err == nil {
			t.Errorf("%s: it is let in", name)
		}
		cancel()
		cl.CloseAllowingRebalance()
	}
	bad, k := good, *good.Kafka
	k.CA = pair.File + "-none"
	bad.Kafka = &k
	if _, err := kafka.Options(&bad); !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("without the file: %v", err)
	}
}

func TestSASL(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mechanism, name := range map[string]string{functions.SASLPlain: "PLAIN", functions.SASLScramSHA256: "SCRAM-SHA-256", functions.SASLScramSHA512: "SCRAM-SHA-512"} {
		c := cluster(t, kfake.EnableSASL(), kfake.Superuser(name, "u", "hush"))
		tr := trigger(c)
		tr.Kafka.SASL = &functions.KafkaSASL{Mechanism: mechanism, User: "u", Password: functions.SecretRef{File: file}}
		opts, err := kafka.Options(&tr)
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		cl.CloseAllowingRebalance()
		tr.Kafka.SASL.Password = functions.SecretRef{File: file + "-none"}
		if _, err := kafka.Options(&tr); !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("without a password: %v", err)
		}
	}
}
