package intake

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/gateway/problem"
)

// refuse answers a request with what is wrong, as the public listener does; of a message that wants no answer it takes note.
func (in *Intake) refuse(m *nats.Msg, err error) {
	if m.Reply == "" {
		in.lost.add(in.log, m.Subject, err, time.Now())
		return
	}
	p := problem.Of(err)
	out := nats.NewMsg(m.Reply)
	if out.Data, err = json.Marshal(p); err != nil {
		in.log.Error("a refusal cannot be encoded", "err", err)
		return
	}
	out.Header.Set("Content-Type", problem.ContentType)
	out.Header.Set(problem.HeaderError, string(p.Code))
	if p.RetryAfter > 0 {
		out.Header.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	in.send(m, out)
}

// send answers on the message's own connection.
func (in *Intake) send(m, out *nats.Msg) {
	if err := m.RespondMsg(out); err != nil {
		in.log.Warn("a request over NATS is not answered", "subject", m.Subject, "err", err)
	}
}

// lostEvery is how often it is logged that messages were not accepted whose senders are not told.
const lostEvery = 10 * time.Second

// lost counts messages that were not accepted and whose senders are not told.
type lost struct {
	mu    sync.Mutex
	count int
	last  struct {
		subject string
		err     error
	}
	told time.Time
}

func (l *lost) add(log *slog.Logger, subject string, err error, now time.Time) {
	l.mu.Lock()
	l.count++
	l.last.subject, l.last.err = subject, err
	due := now.Sub(l.told) >= lostEvery
	l.mu.Unlock()
	if due {
		l.tell(log, now)
	}
}

// tell logs what was counted since it did so last.
func (l *lost) tell(log *slog.Logger, now time.Time) {
	l.mu.Lock()
	n, last := l.count, l.last
	l.count, l.told = 0, now
	l.mu.Unlock()
	if n > 0 {
		log.Warn("messages on NATS are not accepted, and their senders asked for no answer", "count", n, "subject", last.subject, "err", last.err)
	}
}
