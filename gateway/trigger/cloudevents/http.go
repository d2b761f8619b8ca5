package cloudevents

import (
	"errors"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Media types of the JSON format.
const (
	TypeEvent = "application/cloudevents+json"
	TypeBatch = "application/cloudevents-batch+json"
)

// Prefixes of the media types of all formats. That of a batch begins with that of an event, and must be looked for first.
const (
	prefixEvent = "application/cloudevents"
	prefixBatch = "application/cloudevents-batch"
)

// headerPrefix begins the header fields that hold attributes, in the form that net/http gives to names.
const headerPrefix = "Ce-"

// ErrMediaType is in the chain of the error of a message in a format that is not known.
var ErrMediaType = errors.New("only the JSON format is known")

// Mode is how a message carries events.
type Mode uint8

// The modes of a message. None is one that carries no event.
const (
	None Mode = iota
	Binary
	Structured
	Batched
)

// ModeOf tells how a message with this header carries events, if it does.
func ModeOf(h http.Header) Mode {
	t := strings.ToLower(strings.TrimSpace(h.Get("Content-Type")))
	switch {
	case strings.HasPrefix(t, prefixBatch):
		return Batched
	case strings.HasPrefix(t, prefixEvent):
		return Structured
	}
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			return Binary
		}
	}
	return None
}

// Read returns the events that a message carries, each of them valid. The body is not copied.
func Read(h http.Header, body []byte) ([]functions.Event, error) {
	mode := ModeOf(h)
	switch mode {
	case Binary:
		e, err := readBinary(h, body)
		return []functions.Event{e}, err
	case Structured, Batched:
		want := TypeEvent
		if mode == Batched {
			want = TypeBatch
		}
		if err := checkMediaType(h.Get("Content-Type"), want); err != nil {
			return nil, err
		}
		if mode == Batched {
			return DecodeBatch(body)
		}
		e, err := Decode(body)
		return []functions.Event{e}, err
	default:
		return nil, fault.New(fault.CodeInvalidRequest, "the message carries no event").WithField("ce-specversion").
			WithHint("send the headers ce-specversion, ce-id, ce-source and ce-type, or a body of the type %s", TypeEvent)
	}
}

func checkMediaType(got, want string) error {
	t, params, err := mime.ParseMediaType(got)
	charset := params["charset"]
	if err == nil && t == want && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	return fault.Wrap(fault.CodeInvalidRequest, ErrMediaType, "%.80q", got).WithField("Content-Type").WithHint("send %s, in UTF-8", want)
}

func readBinary(h http.Header, body []byte) (functions.Event, error) {
	var e functions.Event
	version := false
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name, is := strings.CutPrefix(key, headerPrefix)
		if !is {
			continue
		}
		name = strings.ToLower(name)
		if name == "datacontenttype" {
			return e, bad(name, "it must not appear as a header of its own: Content-Type says it")
		}
		if len(h[key]) != 1 {
			return e, bad(name, "it is there %d times", len(h[key]))
		}
		value, err := decodeValue(h[key][0])
		if err != nil {
			return e, fault.Wrap(fault.CodeInvalidRequest, err, "the event's %.80s", name).WithField(name)
		}
		if err := e.Set(name, value); err != nil {
			return e, err
		}
		version = version || name == "specversion"
	}
	if !version {
		return e, bad("specversion", "an event must have it")
	}
	if t := h.Get("Content-Type"); t != "" {
		e.DataContentType = t
	}
	if len(body) > 0 {
		e.Data = body
	}
	return e, e.Validate()
}

// Header writes the event's attributes as the header of a message in binary mode, whose body is the event's data.
func Header(e *functions.Event) http.Header {
	h := make(http.Header, 8+len(e.Extensions))
	set := func(name, value string) { h.Set(headerPrefix+name, encodeValue(value)) }
	for _, name := range []string{"specversion", "id", "source", "type", "subject", "dataschema", "time"} {
		if v, ok := e.Attribute(name); ok {
			set(name, v)
		}
	}
	for name, v := range e.Extensions {
		set(name, v)
	}
	if e.DataContentType != "" {
		h.Set("Content-Type", e.DataContentType)
	}
	return h
}
