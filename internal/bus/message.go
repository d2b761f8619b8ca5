package bus

import (
	"bytes"
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
	room bytes.Buffer
	json *json.Encoder
}

// Publish sends a message on a subject over the connection, at most once.
func (p *Publisher) Publish(c *nats.Conn, subject string, msg any) error {
	if p.json == nil {
		p.json = json.NewEncoder(&p.room)
	}
	p.room.Reset()
	if err := p.json.Encode(msg); err != nil {
		return fmt.Errorf("encoding a message for %s: %w", subject, err)
	}
	// The connection copies what it is given.
	err := c.Publish(subject, p.room.Bytes())
	if p.room.Cap() > usualMessage {
		p.room = bytes.Buffer{}
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "publishing on %s", subject)
	}
	return nil
}

// usualMessage is how much room a publisher keeps.
const usualMessage = 16 << 10

// decode reads JSON as encoding/json does, in less than half of its time.
func decode(data []byte, into any) error {
	return jsonv2.Unmarshal(data, into, jsonv1.DefaultOptionsV1())
}

// Decode reads a record or a message. One of a newer schema is refused: its meaning is not known.
func Decode[T any](data []byte) (T, error) {
	var v, zero T
	if err := decode(data, &v); err != nil {
		// A newer schema may have changed a field's type: say that rather than where it did not fit.
		if n := schemaOf(data); n > Schema {
			return zero, newer(n)
		}
		return zero, fmt.Errorf("decoding: %w", err)
	}
	if n := schemaIn(&v); n > Schema {
		return zero, newer(n)
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
