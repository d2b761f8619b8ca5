package nats

import (
	"crypto/rand"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
)

// Type is the type of the events.
const Type = "nats.message"

// eventOf makes an event of a message: its data is the data, its subject the subject.
func eventOf(subject string, h client.Header, data []byte) functions.Event {
	ev := functions.Event{Type: Type, Subject: subject, Data: data}
	for k, v := range h {
		if len(v) == 1 && strings.EqualFold(k, "Content-Type") && strings.Contains(v[0], "/") {
			if _, _, err := mime.ParseMediaType(v[0]); err == nil {
				ev.DataContentType = v[0]
			}
		}
	}
	return ev
}

// EventOf makes an event of a message on a subject. Its Nats-Msg-Id names it; one without a name is an event of its own.
func EventOf(m *client.Msg, now time.Time) functions.Event {
	ev := eventOf(m.Subject, m.Header, m.Data)
	ev.Source, ev.Time = "/nats/"+url.PathEscape(m.Subject), now.UTC()
	if ev.ID = m.Header.Get(client.MsgIdHdr); ev.ID == "" {
		ev.ID = rand.Text()
	}
	return ev
}

// StoredEventOf makes an event of a message of a stream, which is named by the stream, when that was made, and the sequence.
func StoredEventOf(m jetstream.Msg, made time.Time) (functions.Event, error) {
	meta, err := m.Metadata()
	if err != nil {
		return functions.Event{}, err
	}
	ev := eventOf(m.Subject(), m.Headers(), m.Data())
	seq := strconv.FormatUint(meta.Sequence.Stream, 10)
	ev.ID, ev.Source, ev.Time = strconv.FormatInt(made.UnixNano(), 36)+"/"+seq, "/nats/"+url.PathEscape(meta.Stream), meta.Timestamp.UTC()
	ev.Extensions = map[string]string{"natsstream": meta.Stream, "natssequence": seq}
	return ev, nil
}
