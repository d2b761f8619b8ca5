package intake

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Trigger is what invocations that came this way say caused them.
const Trigger = "nats-call"

// Queue is what the intake needs of the queue.
type Queue interface {
	Submit(ctx context.Context, r queue.Request) (queue.Receipt, error)
}

// Admission holds the rates of the namespaces.
type Admission interface {
	AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error)
}

// Intake takes messages in. It is safe for concurrent use.
type Intake struct {
	cfg   Config
	bus   *bus.Bus
	queue Queue
	admit Admission
	log   *slog.Logger
	ready chan struct{}

	waiting chan *nats.Msg
	// bytes is how much data waits.
	bytes atomic.Int64
	lost  lost
}

const (
	// acceptTime bounds the accepting of one message.
	acceptTime = 30 * time.Second
	// leaveTime bounds the beginning and the end of the subscription.
	leaveTime = 10 * time.Second
	// clientBuffer bounds what the connection holds until it is taken out, which is at once.
	clientBuffer = 128 << 20
)

// New makes an intake; it listens in Run.
func New(cfg Config, b *bus.Bus, q Queue, admit Admission, log *slog.Logger) (*Intake, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Intake{cfg: cfg, bus: b, queue: q, admit: admit, log: log, ready: make(chan struct{}), waiting: make(chan *nats.Msg, cfg.MaxWaiting)}, nil
}

// Ready is closed once messages are taken.
func (in *Intake) Ready() <-chan struct{} { return in.ready }

// Run takes messages until ctx ends, accepts those that had come by then, and returns nil. It is called once.
func (in *Intake) Run(ctx context.Context) error {
	nc, err := in.bus.Connect("intake")
	if err != nil {
		return err
	}
	defer nc.Close()
	sub, err := nc.QueueSubscribe(bus.SubjectCalls, bus.GroupGateways, in.take)
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", bus.SubjectCalls, err)
	}
	if err := sub.SetPendingLimits(-1, clientBuffer); err != nil {
		return fmt.Errorf("bounding %s: %w", bus.SubjectCalls, err)
	}
	left := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(left) })
	if err := nc.FlushTimeout(leaveTime); err != nil {
		return fmt.Errorf("subscribing to %s: %w", bus.SubjectCalls, err)
	}
	close(in.ready)
	stop := make(chan struct{})
	var work sync.WaitGroup
	base := context.WithoutCancel(ctx)
	for range in.cfg.AtOnce {
		work.Go(func() { in.work(base, stop) })
	}
	<-ctx.Done()
	if err := sub.Drain(); err == nil {
		select {
		case <-left:
		case <-time.After(leaveTime):
			in.log.Warn("what NATS clients had sent is not all taken at the end")
		}
	}
	close(stop)
	work.Wait()
	in.lost.tell(in.log, time.Now())
	// Answers that do not get out are those of a server that is gone.
	_ = nc.FlushTimeout(leaveTime)
	return nil
}

// take puts a message into the list, or refuses it: it must not wait.
func (in *Intake) take(m *nats.Msg) {
	size := int64(len(m.Data))
	if in.bytes.Add(size) <= in.cfg.MaxWaitingBytes {
		select {
		case in.waiting <- m:
			return
		default:
		}
	}
	in.bytes.Add(-size)
	in.refuse(m, fault.New(fault.CodeWaitingListFull, "the gateway has as many messages waiting as it may").WithRetryAfter(time.Second).
		WithHint("send fewer at a time: wait for answers"))
}

// work accepts messages until stop is closed and none waits.
func (in *Intake) work(ctx context.Context, stop <-chan struct{}) {
	for {
		select {
		case m := <-in.waiting:
			in.accept(ctx, m)
			continue
		default:
		}
		select {
		case m := <-in.waiting:
			in.accept(ctx, m)
		case <-stop:
			return
		}
	}
}

// accept makes an invocation of a message, and answers when it is durable.
func (in *Intake) accept(ctx context.Context, m *nats.Msg) {
	in.bytes.Add(-int64(len(m.Data)))
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	receipt, err := in.submit(ctx, m)
	if err != nil {
		in.refuse(m, err)
		return
	}
	if m.Reply == "" {
		return
	}
	answer, err := gateway.Receipt(receipt)
	if err != nil {
		in.refuse(m, err)
		return
	}
	out := nats.NewMsg(m.Reply)
	out.Data = answer
	out.Header.Set("Content-Type", "application/json")
	out.Header.Set(headerInvocation, string(receipt.ID))
	if receipt.Replayed {
		out.Header.Set(headerReplayed, "true")
	}
	in.send(m, out)
}

func (in *Intake) submit(ctx context.Context, m *nats.Msg) (queue.Receipt, error) {
	r, err := in.requestOf(m, time.Now())
	if err != nil {
		return queue.Receipt{}, err
	}
	if _, err := in.admit.AllowQueued(ctx, r.Ref); err != nil {
		return queue.Receipt{}, err
	}
	return in.queue.Submit(ctx, r)
}

// Ended tells the caller of an invocation that came as a message how it ended.
func (in *Intake) Ended(inv *functions.Invocation, st queue.Status) {
	callers := inv.Header[headerCaller]
	if inv.Trigger != Trigger || len(callers) != 1 {
		return
	}
	data, err := gateway.Standing(&st)
	if err == nil {
		err = in.bus.Conn().PublishMsg(&nats.Msg{Subject: bus.ResultSubject(inv.ID, callers[0]), Data: data, Header: nats.Header{
			"Content-Type": {"application/json"}, headerInvocation: {string(inv.ID)},
		}})
	}
	if err != nil {
		in.log.Warn("a caller was not told the end of its invocation", "inv", string(inv.ID), "caller", callers[0], "err", err)
	}
}
