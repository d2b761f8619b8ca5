package bus

import (
	"encoding"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tatami-faas/tatami/functions"
)

// writing appends a value of a type as encoding/json writes it; false where that is left to encoding/json.
type writing func(b []byte, v reflect.Value) ([]byte, bool)

var (
	writings sync.Map
	ownZero  = reflect.TypeFor[interface{ IsZero() bool }]()
)

// appendLean appends the message that is pointed to, byte by byte as encoding/json writes it. False: encoding/json has to write it.
func appendLean(b []byte, msg any) ([]byte, bool) {
	v := reflect.ValueOf(msg)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return b, false
	}
	v = v.Elem()
	known, ok := writings.Load(v.Type())
	if !ok {
		known, _ = writings.LoadOrStore(v.Type(), writingOf(v.Type(), nil))
	}
	write := known.(writing)
	if write == nil {
		return b, false
	}
	return write(b, v)
}

// writingOf is how a type is written; nil where that is left to encoding/json. Within are the types that this one is a part of.
func writingOf(t reflect.Type, within []reflect.Type) writing {
	p := reflect.PointerTo(t)
	switch {
	case t == timeType:
		return writeTime
	case t == durationType:
		return writeDuration
	case p.Implements(reflect.TypeFor[json.Marshaler]()), p.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return func(b []byte, v reflect.Value) ([]byte, bool) { return appendText(b, v.String()) }
	case reflect.Bool:
		return func(b []byte, v reflect.Value) ([]byte, bool) { return strconv.AppendBool(b, v.Bool()), true }
	case reflect.Int, reflect.Int64:
		return func(b []byte, v reflect.Value) ([]byte, bool) { return strconv.AppendInt(b, v.Int(), 10), true }
	case reflect.Uint64:
		return func(b []byte, v reflect.Value) ([]byte, bool) { return strconv.AppendUint(b, v.Uint(), 10), true }
	case reflect.Float64:
		return writeFloat
	case reflect.Struct:
		return structWriting(t, within)
	case reflect.Slice:
		if item := writingOf(t.Elem(), within); item != nil && t.Elem().Kind() != reflect.Uint8 {
			return func(b []byte, v reflect.Value) ([]byte, bool) { return appendList(b, v, item) }
		}
	case reflect.Pointer:
		if to := writingOf(t.Elem(), within); to != nil {
			return func(b []byte, v reflect.Value) ([]byte, bool) {
				if v.IsNil() {
					return append(b, "null"...), true
				}
				return to(b, v.Elem())
			}
		}
	case reflect.Map:
		if plainText(t.Key()) && plainText(t.Elem()) {
			return writeMap
		}
	}
	return nil
}

// plainText reports whether the type is text that is written as it is.
func plainText(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return t.Kind() == reflect.String && !p.Implements(ownJSON) && !p.Implements(ownText) &&
		!p.Implements(reflect.TypeFor[json.Marshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

func structWriting(t reflect.Type, within []reflect.Type) writing {
	fields, ok := leanFields(t, nil)
	if !ok || slices.Contains(within, t) {
		return nil
	}
	for i := range fields {
		f := &fields[i]
		if f.write = writingOf(f.of, append(within[:len(within):len(within)], t)); f.write == nil {
			return nil
		}
		if f.left, ok = leftOut(f); !ok {
			return nil
		}
	}
	return func(b []byte, v reflect.Value) ([]byte, bool) { return appendObject(b, v, fields) }
}

// leftOut is what tells whether a field's value is left out; nil where none is.
func leftOut(f *leanField) (is func(reflect.Value) bool, ok bool) {
	switch f.options {
	case "":
		return nil, true
	case "omitempty":
		switch f.of.Kind() {
		case reflect.Slice, reflect.Map:
			return func(v reflect.Value) bool { return v.Len() == 0 }, true
		case reflect.Struct:
			return nil, true
		default:
			return reflect.Value.IsZero, true
		}
	case "omitzero":
		if !reflect.PointerTo(f.of).Implements(ownZero) {
			return reflect.Value.IsZero, true
		}
		return func(v reflect.Value) bool { return v.Addr().Interface().(interface{ IsZero() bool }).IsZero() }, f.of.Kind() != reflect.Pointer
	}
	return nil, false
}

func appendObject(b []byte, v reflect.Value, fields []leanField) (_ []byte, ok bool) {
	b = append(b, '{')
	first := len(b)
	for i := range fields {
		f := &fields[i]
		in := f.in(v)
		if f.left != nil && f.left(in) {
			continue
		}
		if len(b) > first {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), '"', ':')
		if b, ok = f.write(b, in); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

func appendList(b []byte, v reflect.Value, item writing) (_ []byte, ok bool) {
	if v.IsNil() {
		return append(b, "null"...), true
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = item(b, v.Index(i)); !ok {
			return b, false
		}
	}
	return append(b, ']'), true
}

func writeMap(b []byte, v reflect.Value) (_ []byte, ok bool) {
	if v.IsNil() {
		return append(b, "null"...), true
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendText(b, k.String()); !ok {
			return b, false
		}
		if b, ok = appendText(append(b, ':'), v.MapIndex(k).String()); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

// timeIn is the time in a field.
func timeIn(v reflect.Value) *time.Time { return v.Addr().Interface().(*time.Time) }

func writeTime(b []byte, v reflect.Value) ([]byte, bool) {
	b, err := timeIn(v).AppendText(append(b, '"'))
	return append(b, '"'), err == nil
}

func writeDuration(b []byte, v reflect.Value) ([]byte, bool) {
	return append(append(append(b, '"'), functions.Duration(v.Int()).String()...), '"'), true
}

// writeFloat writes a number that takes no exponent.
func writeFloat(b []byte, v reflect.Value) ([]byte, bool) {
	f := v.Float()
	if size := math.Abs(f); f != 0 && (size < 1e-6 || !(size < 1e21)) {
		return b, false
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64), true
}

// appendText writes a text that takes no escape. That of less and greater is for browsers.
func appendText(b []byte, s string) ([]byte, bool) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			return append(b, quoted...), err == nil
		}
	}
	return append(append(append(b, '"'), s...), '"'), true
}
