package queue

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// spread runs op n times on c goroutines.
func spread(b *testing.B, c int, op func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	used := cpu()
	for range c {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	report(b, used)
}

// report gives the rate, and the CPU time of an operation: the rate depends on what else the machine does.
func report(b *testing.B, used time.Duration) {
	b.Helper()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is the CPU time that this process took.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func noop(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: http.NoBody}, nil
}

// benchDir is on the disk that holds real data directories, not on a tmpfs.
func benchDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "tatami-bench-") //nolint:usetesting // TempDir may be on a tmpfs
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// BenchmarkAccept is acceptance with validation, caps and barrier; no attempt is made meanwhile.
func BenchmarkAccept(b *testing.B) {
	run := newDataPath(b, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 10_000_000 })
	w := start(b, benchDir(b), run, Config{})
	body := make([]byte, 512)
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"bench/1"}}
	for _, c := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("c%d", c), func(b *testing.B) {
			spread(b, c, func() error {
				_, err := w.q.Accept(context.Background(), Request{Ref: hello, Body: body, Header: header})
				return err
			})
		})
	}
}

// BenchmarkComplete is dispatch, an attempt that does nothing, the result, the barrier and the acknowledgement.
func BenchmarkComplete(b *testing.B) {
	run := newDataPath(b, 0, http.HandlerFunc(echo))
	run.trip = noop
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 10_000_000 })
	w := start(b, benchDir(b), run, Config{})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range b.N/64 + min(1, max(0, b.N%64-i)) {
				_, _ = w.q.Accept(context.Background(), Request{Ref: hello, Body: make([]byte, 512)})
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
	used := cpu()
	run.set(func() { run.free = 64 })
	for {
		info, err := w.bus.Invocations().Info(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if info.State.Msgs == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	report(b, used)
}

// BenchmarkRaw is what the server does without any of it: publish with Msg-Id, and fetch, publish a result, acknowledge.
func BenchmarkRaw(b *testing.B) {
	for _, sync := range []bool{false, true} {
		name := map[bool]string{false: "default", true: "sync-always"}[sync]
		srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: benchDir(b), DontListen: true, NoSigs: true, SyncAlways: sync})
		if err != nil {
			b.Fatal(err)
		}
		srv.Start()
		nc, err := nats.Connect("", nats.InProcessServer(srv))
		if err != nil {
			b.Fatal(err)
		}
		js, _ := jetstream.New(nc)
		ctx := context.Background()
		st, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "Q", Subjects: []string{"q.>"}, Retention: jetstream.WorkQueuePolicy})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "R", Subjects: []string{"r.>"}}); err != nil {
			b.Fatal(err)
		}
		body := make([]byte, 512)
		publish := func(subject string) error {
			id := functions.NewInvocationID(hello)
			_, err := js.PublishMsg(ctx, &nats.Msg{Subject: subject + string(id), Data: body, Header: nats.Header{"Nats-Msg-Id": {string(id)}}})
			return err
		}
		for _, c := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("publish/%s/c%d", name, c), func(b *testing.B) { spread(b, c, func() error { return publish("q.") }) })
		}
		if !sync {
			b.Run("complete/c64", func(b *testing.B) {
				_ = st.Purge(ctx)
				_ = bus.StreamDead
				for range b.N {
					if err := publish("q."); err != nil {
						b.Fatal(err)
					}
				}
				cons, err := st.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "c", MaxAckPending: 10_000})
				if err != nil {
					b.Fatal(err)
				}
				it, err := cons.Messages(jetstream.PullMaxMessages(500))
				if err != nil {
					b.Fatal(err)
				}
				spread(b, 64, func() error {
					m, err := it.Next()
					if err != nil {
						return err
					}
					if err := publish("r."); err != nil {
						return err
					}
					return m.Ack()
				})
				it.Stop()
			})
		}
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}
