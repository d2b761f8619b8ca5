package bus

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Publish sends a message in JSON on a subject, at most once.
func Publish(b interface{ Conn() *nats.Conn }, subject string, msg any) error {
	data, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encoding a message for %s: %w", subject, err)
	}
	if err := b.Conn().Publish(subject, data); err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "publishing on %s", subject)
	}
	return nil
}

// Decode reads a record or a message. One of a newer schema is refused: its meaning is not known.
func Decode[T any](data []byte) (T, error) {
	var v, zero T
	if err := json.Unmarshal(data, &v); err != nil {
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
	if err := json.Unmarshal(data, &head); err != nil {
		return 0
	}
	return head.Schema
}
