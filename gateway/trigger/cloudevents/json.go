package cloudevents

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// MaxBatch is how many events a batch holds at most.
const MaxBatch = 1000

const jsonType = "application/json"

// Decode reads one event in the JSON format.
func Decode(data []byte) (functions.Event, error) {
	var e functions.Event
	if !utf8.Valid(data) {
		return e, bad("body", "it is not UTF-8")
	}
	members, err := membersOf(data)
	if err != nil {
		return e, err
	}
	version, ok := members["specversion"]
	if !ok {
		return e, bad("specversion", "an event must have it")
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name == "data" || name == "data_base64" {
			continue
		}
		text, set, err := attributeText(name, members[name])
		if err == nil && set {
			err = e.Set(name, text)
		}
		if err != nil {
			return e, err
		}
	}
	if string(version) == "null" {
		return e, bad("specversion", "an event must have it")
	}
	if err := decodeData(&e, members); err != nil {
		return e, err
	}
	return e, e.Validate()
}

// DecodeBatch reads a batch in the JSON format; it may be empty. The field of an error begins with the event's place in the batch.
func DecodeBatch(data []byte) ([]functions.Event, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil || raw == nil {
		return nil, bad("body", "it is no array in JSON")
	}
	if len(raw) > MaxBatch {
		return nil, bad("body", "a batch has at most %d events, this one %d", MaxBatch, len(raw))
	}
	out := make([]functions.Event, 0, len(raw))
	for i, r := range raw {
		e, err := Decode(r)
		if err != nil {
			f := fault.From(err)
			return nil, fault.New(f.Code, "event %d of the batch: %s", i, f.Message).WithField(fmt.Sprintf("[%d].%s", i, f.Field))
		}
		out = append(out, e)
	}
	return out, nil
}

// membersOf reads an object of which no member is there twice.
func membersOf(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, bad("body", "it is no object in JSON")
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, bad("body", "it is not JSON")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, bad(name, "its value is not JSON")
		}
		if _, twice := out[name]; twice {
			return nil, bad(name, "it is there twice")
		}
		if out[name] = value; len(out) > functions.MaxExtensions+10 {
			return nil, bad("body", "the event has too many members")
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, bad("body", "it is not JSON")
	}
	if d.More() {
		return nil, bad("body", "something follows the event")
	}
	return out, nil
}

// attributeText is an attribute's value as text; false where it is null, which is as if it were not there.
func attributeText(name string, raw json.RawMessage) (string, bool, error) {
	switch {
	case string(raw) == "null":
		return "", false, nil
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", false, bad(name, "it is no text")
		}
		return s, true, nil
	case isCore(name):
		return "", false, bad(name, "it must be a text")
	case string(raw) == "true", string(raw) == "false":
		return string(raw), true, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return "", false, bad(name, "it is neither a text, nor a truth value, nor a whole number of 32 bits")
	}
	return strconv.FormatInt(n, 10), true, nil
}

func isCore(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

func decodeData(e *functions.Event, members map[string]json.RawMessage) error {
	inline, isInline := present(members, "data")
	encoded, isEncoded := present(members, "data_base64")
	switch {
	case isInline && isEncoded:
		return bad("data_base64", "data is there as well")
	case isEncoded:
		var s string
		if err := json.Unmarshal(encoded, &s); err != nil {
			return bad("data_base64", "it must be a text")
		}
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return bad("data_base64", "it is not base64")
		}
		e.Data = b
	case isInline && !functions.HoldsJSON(e.DataContentType) && inline[0] == '"':
		var s string
		if err := json.Unmarshal(inline, &s); err != nil {
			return bad("data", "it is no text")
		}
		e.Data = []byte(s)
	case isInline:
		e.Data = inline
		if e.DataContentType == "" {
			// The format says so: what is written as JSON, and not said to be anything else, is JSON.
			e.DataContentType = jsonType
		}
	}
	return nil
}

func present(members map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	v, ok := members[name]
	return v, ok && string(v) != "null"
}

func bad(field, format string, args ...any) *fault.Error {
	field = cmp.Or(field[:min(len(field), 80)], "member without a name")
	return fault.New(fault.CodeInvalidRequest, "the event's %s: %s", field, fmt.Sprintf(format, args...)).WithField(field)
}
