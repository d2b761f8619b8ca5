package functions

import (
	"cmp"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/internal/fault"
)

// EventVersion is the version of the CloudEvents specification that Event follows.
const EventVersion = "1.0"

// Bounds of an event's attributes.
const (
	// MaxExtensions is how many extension attributes an event has at most.
	MaxExtensions = 64
	// MaxAttribute is how long the value of an attribute is at most, in bytes.
	MaxAttribute = 8 << 10
	// maxAttributeName is the longest name of an attribute, in bytes.
	maxAttributeName = 64
)

// Event is one occurrence that a trigger took in, with the attributes of CloudEvents 1.0.
type Event struct {
	// ID and Source together name the occurrence: the same two again are the same event.
	ID string
	// Source is a URI reference.
	Source string
	Type   string
	// Subject is what of the source the event is about; empty: nothing is said.
	Subject string
	// Time is when it happened; zero: nothing is said.
	Time time.Time
	// DataContentType is the media type of Data; empty: nothing is said.
	DataContentType string
	// DataSchema is an absolute URI; empty: nothing is said.
	DataSchema string
	// Extensions are further attributes by their names.
	Extensions map[string]string
	// Data is the payload; nil where there is none.
	Data []byte
}

// Attribute returns the value of a context attribute as text; false where the event has none of that name.
func (e *Event) Attribute(name string) (string, bool) {
	v := ""
	switch name {
	case "specversion":
		v = EventVersion
	case "id":
		v = e.ID
	case "source":
		v = e.Source
	case "type":
		v = e.Type
	case "subject":
		v = e.Subject
	case "datacontenttype":
		v = e.DataContentType
	case "dataschema":
		v = e.DataSchema
	case "time":
		if !e.Time.IsZero() {
			v = e.Time.Format(time.RFC3339Nano)
		}
	default:
		v, ok := e.Extensions[name]
		return v, ok
	}
	return v, v != ""
}

// Set gives a context attribute its value, as text. The field of the error is the attribute's name. Validate judges the event as a whole.
func (e *Event) Set(name, value string) error {
	switch name {
	case "specversion":
		if value != EventVersion {
			return badEvent(name, "%.40q is no version of CloudEvents that is known", value).WithHint("send specversion %s", EventVersion)
		}
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "datacontenttype":
		e.DataContentType = value
	case "dataschema":
		e.DataSchema = value
	case "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return badEvent(name, "%.60q is no time like 2031-05-01T12:00:00Z", value)
		}
		e.Time = t
		return nil
	default:
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[name] = value
		return checkAttribute(name, value)
	}
	if value == "" {
		return badEvent(name, "it is empty")
	}
	return checkAttribute(name, value)
}

// Validate reports the first rule of CloudEvents 1.0 that the event breaks; the error's field is the attribute's name.
func (e *Event) Validate() error {
	for _, a := range []struct{ name, value string }{{"id", e.ID}, {"source", e.Source}, {"type", e.Type}} {
		if a.value == "" {
			return badEvent(a.name, "an event must have it")
		}
	}
	for _, name := range []string{"id", "source", "type", "subject", "datacontenttype", "dataschema"} {
		if v, ok := e.Attribute(name); ok {
			if err := checkAttribute(name, v); err != nil {
				return err
			}
		}
	}
	if _, err := url.Parse(e.Source); err != nil || strings.Contains(e.Source, " ") {
		return badEvent("source", "%.80q is no URI reference", e.Source)
	}
	if u, err := url.Parse(e.DataSchema); e.DataSchema != "" && (err != nil || !u.IsAbs()) {
		return badEvent("dataschema", "%.80q is no absolute URI", e.DataSchema)
	}
	if e.DataContentType != "" {
		if _, _, err := mime.ParseMediaType(e.DataContentType); err != nil || !strings.Contains(e.DataContentType, "/") {
			return badEvent("datacontenttype", "%.80q is no media type", e.DataContentType)
		}
	}
	if len(e.Extensions) > MaxExtensions {
		return badEvent("extensions", "%d are more than %d", len(e.Extensions), MaxExtensions)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		if err := checkAttribute(name, e.Extensions[name]); err != nil {
			return err
		}
	}
	return nil
}

// HoldsJSON reports whether the media type, which may be empty, is one of JSON.
func HoldsJSON(mediaType string) bool {
	if mediaType == "" {
		return true
	}
	t, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return false
	}
	_, sub, _ := strings.Cut(t, "/")
	return sub == "json" || strings.HasSuffix(sub, "+json")
}

// IsAttributeName reports whether s may name an attribute of an event: lower-case letters and digits.
func IsAttributeName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxAttributeName
}

func checkAttribute(name, value string) error {
	switch {
	case !IsAttributeName(name) || name == "data":
		return badEvent(name, "%.80q is no name of an attribute", name).WithHint("use 1 to %d of a-z and 0-9", maxAttributeName)
	case len(value) > MaxAttribute:
		return badEvent(name, "it has %d bytes, at most %d may be", len(value), MaxAttribute)
	case !utf8.ValidString(value):
		return badEvent(name, "it is not UTF-8")
	case strings.ContainsFunc(value, forbiddenRune):
		return badEvent(name, "it holds a character that CloudEvents forbids")
	}
	return nil
}

// forbiddenRune reports what no attribute may hold: control characters and code points that are no characters.
func forbiddenRune(r rune) bool {
	return unicode.IsControl(r) || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
}

func badEvent(name, format string, args ...any) *fault.Error {
	name = cmp.Or(name[:min(len(name), 80)], "attribute without a name")
	return fault.New(fault.CodeInvalidRequest, "the event's %s: %s", name, fmt.Sprintf(format, args...)).WithField(name)
}
