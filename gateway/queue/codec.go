package queue

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Records are JSON as encoding/json writes and reads it. What every invocation costs is written and read here, at a quarter of the price; what
// is out of the ordinary is left to encoding/json.

// appendString appends a JSON text.
func appendString(b []byte, s string) []byte {
	begun := len(b)
	b = append(b, '"')
	done := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			// The encoder never fails on a text.
			quoted, _ := json.Marshal(s)
			return append(b[:begun], quoted...)
		case c == '"' || c == '\\':
			b = append(append(b, s[done:i]...), '\\')
			done = i
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// appendField appends a member of an object that is a text, unless that is empty.
func appendField(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	b = append(append(b, name...), '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendHeader(b []byte, h map[string][]string) []byte {
	b = append(b, '{')
	var room [16]string
	names := room[:0]
	for k := range h {
		names = append(names, k)
	}
	slices.Sort(names)
	for i, k := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		if h[k] == nil {
			b = append(b, "null"...)
			continue
		}
		b = append(b, '[')
		for j, v := range h[k] {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendBody(b, body []byte) []byte {
	if len(body) == 0 {
		return b
	}
	b = append(b, `,"body":"`...)
	b = base64.StdEncoding.AppendEncode(b, body)
	return append(b, '"')
}

// ordinaryTime reports whether encoding/json writes the time, and as appendTime does.
func ordinaryTime(t time.Time) bool {
	return t.Year() > 0 && t.Year() < 9999 && t.Location() == time.UTC
}

// encodeInvocation is json.Marshal for an invocation.
func encodeInvocation(inv *functions.Invocation) ([]byte, error) {
	if inv.BodyRef != nil || len(inv.History) > 0 || !inv.NotBefore.IsZero() || inv.RedriveOf != "" || inv.Revision != "" || inv.Of != "" || inv.Hops != 0 || inv.Callback != "" ||
		!ordinaryTime(inv.Accepted) || !ordinaryTime(inv.Deadline) {
		return json.Marshal(inv)
	}
	b := make([]byte, 0, 512+len(inv.Body)*4/3)
	b = strconv.AppendInt(append(b, `{"schema":`...), int64(inv.Schema), 10)
	b = appendString(append(b, `,"id":`...), string(inv.ID))
	b = appendString(append(b, `,"namespace":`...), inv.Namespace)
	b = appendString(append(b, `,"function":`...), inv.Function)
	b = appendString(append(b, `,"trigger":`...), inv.Trigger)
	b = appendString(append(b, `,"method":`...), inv.Method)
	b = appendString(append(b, `,"path":`...), inv.Path)
	b = appendField(b, `,"query":`, inv.Query)
	if len(inv.Header) > 0 {
		b = appendHeader(append(b, `,"header":`...), inv.Header)
	}
	b = appendBody(b, inv.Body)
	b = appendTime(b, `,"accepted":`, inv.Accepted)
	b = appendTime(b, `,"deadline":`, inv.Deadline)
	b = strconv.AppendInt(append(b, `,"attempt":`...), int64(inv.Attempt), 10)
	b = appendField(b, `,"orderingKey":`, inv.OrderingKey)
	return append(b, '}'), nil
}

// encodeResult is json.Marshal for a result.
func encodeResult(rec *functions.Result) ([]byte, error) {
	ordinary := rec.BodyRef == nil && rec.Request == nil && rec.Attempts != nil && ordinaryTime(rec.Accepted) && ordinaryTime(rec.Finished)
	for i := range rec.Attempts {
		ordinary = ordinary && ordinaryTime(rec.Attempts[i].Started) && ordinaryTime(rec.Attempts[i].Ended)
	}
	if !ordinary {
		return json.Marshal(rec)
	}
	b := make([]byte, 0, 768+len(rec.Body)*4/3)
	b = strconv.AppendInt(append(b, `{"schema":`...), int64(rec.Schema), 10)
	b = appendString(append(b, `,"id":`...), string(rec.ID))
	b = appendString(append(b, `,"namespace":`...), rec.Namespace)
	b = appendString(append(b, `,"function":`...), rec.Function)
	b = appendString(append(b, `,"state":`...), string(rec.State))
	b = appendField(b, `,"reason":`, rec.Reason)
	b = append(b, `,"attempts":[`...)
	for i := range rec.Attempts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendAttempt(b, &rec.Attempts[i])
	}
	b = append(b, ']')
	if rec.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(rec.Status), 10)
	}
	if len(rec.Header) > 0 {
		b = appendHeader(append(b, `,"header":`...), rec.Header)
	}
	b = appendBody(b, rec.Body)
	b = appendTime(b, `,"accepted":`, rec.Accepted)
	b = appendTime(b, `,"finished":`, rec.Finished)
	return append(b, '}'), nil
}

func appendAttempt(b []byte, a *functions.Attempt) []byte {
	b = strconv.AppendInt(append(b, `{"number":`...), int64(a.Number), 10)
	b = appendField(b, `,"revision":`, string(a.Revision))
	b = appendField(b, `,"instance":`, string(a.Instance))
	b = appendTime(b, `,"started":`, a.Started)
	b = appendTime(b, `,"ended":`, a.Ended)
	if a.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(a.Status), 10)
	}
	b = appendField(b, `,"error":`, a.Error)
	b = appendField(b, `,"message":`, a.Message)
	if a.Cold {
		b = append(b, `,"cold":true`...)
	}
	return append(b, '}')
}

// decodeInvocation is bus.Decode for an invocation.
func decodeInvocation(data []byte) (functions.Invocation, error) {
	if inv, ok := readInvocation(data); ok {
		return inv, nil
	}
	return bus.Decode[functions.Invocation](data)
}

// readInvocation reads what encodeInvocation wrote by itself; false for anything else.
func readInvocation(data []byte) (functions.Invocation, bool) {
	var inv functions.Invocation
	// Copied once: the texts are parts of the copy.
	r := reader{raw: data, text: string(data)}
	r.open('{')
	last := 0
	for more := true; more && !r.odd; more = r.more('}') {
		name := r.word()
		r.open(':')
		at := r.member(&inv, name)
		// In their order, and so each once.
		if at <= last {
			r.odd = true
		}
		last = at
	}
	return inv, !r.odd && r.at == len(r.text) && inv.Schema > 0 && inv.Schema <= functions.Schema
}

// member reads the value of a member and returns the member's place; 0 for one that is not known here.
func (r *reader) member(inv *functions.Invocation, name string) int {
	switch name {
	case "schema":
		inv.Schema = r.number()
		return 1
	case "id":
		inv.ID = functions.InvocationID(r.word())
		return 2
	case "namespace":
		inv.Namespace = r.word()
		return 3
	case "function":
		inv.Function = r.word()
		return 4
	case "trigger":
		inv.Trigger = r.word()
		return 5
	case "method":
		inv.Method = r.word()
		return 6
	case "path":
		inv.Path = r.word()
		return 7
	case "query":
		inv.Query = r.word()
		return 8
	case "header":
		inv.Header = r.header()
		return 9
	case "body":
		inv.Body = r.bytes()
		return 10
	case "accepted":
		inv.Accepted = r.time()
		return 11
	case "deadline":
		inv.Deadline = r.time()
		return 12
	case "attempt":
		inv.Attempt = r.number()
		return 13
	case "orderingKey":
		inv.OrderingKey = r.word()
		return 14
	}
	return 0
}

// reader reads JSON without spaces, null, and escapes but those of quotes and backslashes. Odd is set by what is otherwise, and what is read then means nothing.
type reader struct {
	// text is raw as a text, read up to at.
	raw  []byte
	text string
	at   int
	odd  bool
}

// next reports whether c comes.
func (r *reader) next(c byte) bool { return r.at < len(r.text) && r.text[r.at] == c }

// open takes one byte.
func (r *reader) open(c byte) {
	if !r.next(c) {
		r.odd = true
		return
	}
	r.at++
}

// more takes a comma, or the end of an object or a list.
func (r *reader) more(end byte) bool {
	if r.next(',') {
		r.at++
		return true
	}
	r.open(end)
	return false
}

// word takes a text in plain ASCII.
func (r *reader) word() string {
	r.open('"')
	begun := r.at
	for i := begun; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			return r.text[begun:i]
		case c == '\\':
			return r.escaped(i)
		case c < ' ' || c > '~':
			r.odd = true
			return ""
		}
	}
	r.odd = true
	return ""
}

// escaped takes a text whose first escape is at i.
func (r *reader) escaped(i int) string {
	out := append(make([]byte, 0, i-r.at+64), r.text[r.at:i]...)
	for ; i < len(r.text); i++ {
		c := r.text[i]
		switch {
		case c == '"':
			r.at = i + 1
			return string(out)
		case c == '\\' && i+1 < len(r.text) && (r.text[i+1] == '"' || r.text[i+1] == '\\'):
			i++
			c = r.text[i]
		case c < ' ' || c > '~' || c == '\\':
			r.odd = true
			return ""
		}
		out = append(out, c)
	}
	r.odd = true
	return ""
}

// number takes a small whole number.
func (r *reader) number() int {
	n, i := 0, r.at
	for ; i < len(r.text) && i < r.at+9 && r.text[i] >= '0' && r.text[i] <= '9'; i++ {
		n = 10*n + int(r.text[i]-'0')
	}
	if i == r.at || i > r.at+1 && r.text[r.at] == '0' {
		r.odd = true
		return 0
	}
	r.at = i
	return n
}

func (r *reader) time() time.Time {
	t, err := time.Parse(time.RFC3339, r.word())
	if err != nil || t.Location() != time.UTC {
		r.odd = true
	}
	return t
}

// bytes takes a text in base64. Its decoder knows what may be in there, but for line ends.
func (r *reader) bytes() []byte {
	r.open('"')
	n := strings.IndexByte(r.text[r.at:], '"')
	if n <= 0 || strings.IndexByte(r.text[r.at:r.at+n], '\n') >= 0 || strings.IndexByte(r.text[r.at:r.at+n], '\r') >= 0 {
		r.odd = true
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(n))
	got, err := base64.StdEncoding.Decode(out, r.raw[r.at:r.at+n])
	r.at += n + 1
	if err != nil {
		r.odd = true
	}
	return out[:got]
}

func (r *reader) header() map[string][]string {
	h := map[string][]string{}
	// Nearly every field has one value, and few have more fields.
	values := make([]string, 0, 8)
	r.open('{')
	for more := true; more && !r.odd; more = r.more('}') {
		name := r.word()
		r.open(':')
		r.open('[')
		begun := len(values)
		for more := true; more && !r.odd; more = r.more(']') {
			values = append(values, r.word())
		}
		if _, twice := h[name]; twice {
			r.odd = true
		}
		h[name] = values[begun:len(values):len(values)]
	}
	return h
}
