package spec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/golden"
)

func TestSchemaIsTheFile(t *testing.T) {
	t.Parallel()
	out, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out) {
		t.Error("not JSON")
	}
	golden.Check(t, "../tatami.schema.json", out)
}

// The schema lists what a trigger in the file may hold: every source, of which it has one, and no field that is not for a file to say.
func TestTheSchemaListsTheSources(t *testing.T) {
	t.Parallel()
	s := triggerSchema()
	want := map[string]bool{}
	typ := reflect.TypeFor[functions.Trigger]()
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if want[name] = true; notInFile(name) {
			delete(want, name)
		}
	}
	sources := map[string]bool{}
	for i, name := range s.Properties.names {
		if !want[name] {
			t.Errorf("%s is not for the file", name)
		}
		delete(want, name)
		if s.Properties.values[i].Description != "" {
			sources[name] = true
		}
	}
	if len(want) > 0 {
		t.Errorf("%v are missing", want)
	}
	for _, kind := range []string{functions.KindEvent, functions.KindCron, functions.KindWebhook, functions.KindKafka, functions.KindNATS} {
		if !sources[kind] {
			t.Errorf("the source %s is not described", kind)
		}
		delete(sources, kind)
	}
	if len(sources) > 0 || len(s.OneOf) != len(sourceDocs()) {
		t.Errorf("%v beside %d sources", sources, len(s.OneOf))
	}
}

// The bounds in the table are those that functions.Config holds.
func TestBoundsOfTheTable(t *testing.T) {
	t.Parallel()
	var walk func(fields []field, open, shut string)
	walk = func(fields []field, open, shut string) {
		for _, row := range fields {
			if row.kind == section {
				walk(row.fields, open+row.name+": {", shut+"}")
				continue
			}
			if row.kind != number {
				continue
			}
			text := func(v int64) string {
				s := fmt.Sprintf("name: a\n%s%s: %d%s\n", open, row.name, v, shut)
				if row.name == "min" {
					s = strings.Replace(s, "}", ", max: 10000}", 1)
				}
				return s
			}
			for v, good := range map[int64]bool{row.lo: true, row.hi: true, row.lo - 1: false, row.hi + 1: false} {
				if _, err := Parse("t", []byte(text(v))); (err == nil) != good {
					t.Errorf("%s: %v", text(v), err)
				}
			}
		}
	}
	walk(table(), "", "")
}

// Every field of the table leads to a value of its own, so that a new row with a wrong pointer is found.
func TestFieldsAreDistinct(t *testing.T) {
	t.Parallel()
	f := &File{Config: functions.Config{}}
	seen := map[string]string{}
	var walk func(prefix string, fields []field)
	walk = func(prefix string, fields []field) {
		for _, row := range fields {
			if row.doc == "" {
				t.Errorf("%s%s is not documented", prefix, row.name)
			}
			if row.kind == section {
				walk(prefix+row.name+".", row.fields)
				continue
			}
			at := fmt.Sprintf("%p", row.at(f))
			if other, twice := seen[at]; twice {
				t.Errorf("%s%s and %s are the same value", prefix, row.name, other)
			}
			seen[at] = prefix + row.name
		}
	}
	walk("", table())
}
