package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rawRound measures JetStream alone, in process: publish with Msg-Id by 64 callers, then a loop that fetches, publishes a result and
// acks. With always the server syncs every message by itself.
func rawRound(ctx context.Context, always bool, n int, name string, add func(string, float64)) error {
	dir, err := os.MkdirTemp("/tmp", "ttraw")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := natsserver.NewServer(&natsserver.Options{JetStream: true, StoreDir: dir, DontListen: true, NoLog: true, NoSigs: true, SyncAlways: always})
	if err != nil {
		return err
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(10 * time.Second) {
		return errors.New("the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "IN", Subjects: []string{"in.>"}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		return err
	}
	body := []byte(strings.Repeat("x", bodySize))
	var id atomic.Int64
	rate, lat, err := hammer(acceptCallers, n, func() error {
		_, err := js.Publish(ctx, "in.a", body, jetstream.WithMsgID(fmt.Sprintf("inv_%036d", id.Add(1))))
		return err
	})
	if err != nil {
		return err
	}
	add(name+"-publish", rate)
	add(name+"-p99", ms(lat[len(lat)*99/100]))
	if always {
		return nil
	}
	if rate, err = rawComplete(ctx, js, n); err != nil {
		return err
	}
	add(name+"-complete", rate)
	return nil
}

func rawComplete(ctx context.Context, js jetstream.JetStream, n int) (float64, error) {
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "OUT", Subjects: []string{"out.>"}}); err != nil {
		return 0, err
	}
	cons, err := js.CreateConsumer(ctx, "IN", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1000})
	if err != nil {
		return 0, err
	}
	result := []byte(strings.Repeat("y", bodySize))
	errs := make([]error, acceptCallers)
	msgs := make(chan jetstream.Msg)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range acceptCallers {
		wg.Go(func() {
			for m := range msgs {
				meta, err := m.Metadata()
				if err == nil {
					_, err = js.Publish(ctx, fmt.Sprintf("out.%d", meta.Sequence.Stream), result)
				}
				if err == nil {
					err = m.Ack()
				}
				if err != nil {
					errs[i] = err
				}
			}
		})
	}
	for done := 0; done < n; {
		batch, err := cons.Fetch(500, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			close(msgs)
			return 0, err
		}
		before := done
		for m := range batch.Messages() {
			msgs <- m
			done++
		}
		if done == before {
			close(msgs)
			return 0, fmt.Errorf("only %d of %d messages came", done, n)
		}
	}
	close(msgs)
	wg.Wait()
	return float64(n) / time.Since(begun).Seconds(), errors.Join(errs...)
}

// fsyncRound measures the disk alone: 512 bytes appended and synced.
func fsyncRound(add func(string, float64)) error {
	dir, err := os.MkdirTemp("/tmp", "ttfsync")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		return err
	}
	defer f.Close()
	body := make([]byte, bodySize)
	var lat []time.Duration
	for range 500 {
		at := time.Now()
		if _, err := f.Write(body); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		lat = append(lat, time.Since(at))
	}
	slices.Sort(lat)
	add("fsync", ms(lat[len(lat)/2]))
	return nil
}
