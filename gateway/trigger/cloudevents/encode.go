package cloudevents

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/functions"
)

// Encode writes the event in the JSON format. It must be valid.
func Encode(e *functions.Event) ([]byte, error) {
	out := map[string]any{"specversion": functions.EventVersion, "id": e.ID, "source": e.Source, "type": e.Type}
	for _, name := range []string{"subject", "datacontenttype", "dataschema"} {
		if v, ok := e.Attribute(name); ok {
			out[name] = v
		}
	}
	if !e.Time.IsZero() {
		out["time"] = e.Time.Format(time.RFC3339Nano)
	}
	for k, v := range e.Extensions {
		out[k] = v
	}
	switch {
	case e.Data == nil:
	case e.DataContentType != "" && functions.HoldsJSON(e.DataContentType) && json.Valid(e.Data):
		out["data"] = json.RawMessage(e.Data)
	case isText(e.DataContentType) && utf8.Valid(e.Data):
		out["data"] = string(e.Data)
	default:
		out["data_base64"] = e.Data
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return data, nil
}

// EncodeBatch writes a batch in the JSON format.
func EncodeBatch(events []functions.Event) ([]byte, error) {
	parts := make([]json.RawMessage, 0, len(events))
	for i := range events {
		p, err := Encode(&events[i])
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	data, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("encoding a batch: %w", err)
	}
	return data, nil
}

func isText(mediaType string) bool {
	t, _, err := mime.ParseMediaType(mediaType)
	return err == nil && strings.HasPrefix(t, "text/")
}
