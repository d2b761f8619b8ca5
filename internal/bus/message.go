package bus

import (
	"encoding/json"
	"fmt"
	"reflect"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Publish sends a message in JSON on a subject, at most once. It is for one now and then; see Publisher.
func Publish(b interface{ Conn() *nats.Conn }, subject string, msg any) error {
	return new(Publisher).Publish(b.Conn(), subject, msg)
}

// Publisher sends messages in JSON. One goroutine at a time uses it: all of them are written into the same room. The zero value is ready.
type Publisher struct {
	room []byte
	// added are the messages in the room, in their order.
	added []addedMessage
}

// addedMessage is what a publisher sends on a subject: its room up to the end, from the end of the message before.
type addedMessage struct {
	subject string
	end     int
}

// Publish sends a message on a subject over the connection, at most once.
func (p *Publisher) Publish(c *nats.Conn, subject string, msg any) error {
	if err := p.Add(subject, msg); err != nil {
		return err
	}
	return p.Send(c)
}

// Add makes a message ready, which Send sends.
func (p *Publisher) Add(subject string, msg any) error {
	room, ok := appendLean(p.room, msg)
	if !ok {
		data, err := json.Marshal(msg)
		if err != nil {
			return fmt.Errorf("encoding a message for %s: %w", subject, err)
		}
		room = append(p.room, data...)
	}
	p.room = append(room, '\n')
	p.added = append(p.added, addedMessage{subject, len(p.room)})
	return nil
}

// Send sends over the connection what was added, each message at most once, with nothing in between: where that is possible they cost one write, at the
// other side one read, and each of those on the way is woken once.
func (p *Publisher) Send(c *nats.Conn) (err error) {
	at := 0
	for _, m := range p.added {
		// The connection copies what it is given.
		if perr := c.Publish(m.subject, p.room[at:m.end]); perr != nil && err == nil {
			err = fault.Wrap(fault.CodeUnavailable, perr, "publishing on %s", m.subject)
		}
		at = m.end
	}
	p.added = p.added[:0]
	if p.room = p.room[:0]; cap(p.room) > usualMessage {
		p.room = nil
	}
	return err
}

// usualMessage is how much room a publisher keeps.
const usualMessage = 16 << 10

// decode reads JSON as encoding/json does, in less than half of its time.
func decode(data []byte, into any) error {
	return jsonv2.Unmarshal(data, into, jsonv1.DefaultOptionsV1())
}

// Decode reads a record or a message. One of a newer schema is refused: its meaning is not known.
func Decode[T any](data []byte) (T, error) {
	v, err := Read[T](data)
	if err != nil {
		var zero T
		return zero, err
	}
	return *v, nil
}

// Read is Decode for what is handed on: it makes no copy.
func Read[T any](data []byte) (*T, error) {
	v := new(T)
	if !readLean(data, v) {
		return readAny[T](data)
	}
	if n := schemaIn(v); n > Schema {
		return nil, newer(n)
	}
	return v, nil
}

// readAny is Read for what is written in any way.
func readAny[T any](data []byte) (*T, error) {
	v := new(T)
	if err := decode(data, v); err != nil {
		// A newer schema may have changed a field's type: say that rather than where it did not fit.
		if n := schemaOf(data); n > Schema {
			return nil, newer(n)
		}
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if n := schemaIn(v); n > Schema {
		return nil, newer(n)
	}
	return v, nil
}

// schemaIn reads the number from the decoded value: the data may be large. Messages, of which there are many, know theirs.
func schemaIn(v any) int {
	if m, ok := v.(interface{ schema() int }); ok {
		return m.schema()
	}
	s := reflect.ValueOf(v).Elem()
	if s.Kind() != reflect.Struct {
		return 0
	}
	f := s.FieldByName("Schema")
	if !f.IsValid() || f.Kind() != reflect.Int {
		return 0
	}
	return int(f.Int())
}

func newer(n int) error {
	return fault.New(fault.CodeConflict, "the record has schema %d, this tatami knows %d", n, Schema).
		WithHint("it was written by a newer tatami: install that version")
}

func schemaOf(data []byte) int {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := decode(data, &head); err != nil {
		return 0
	}
	return head.Schema
}
