package spec

import (
	"reflect"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// durationPattern is how durations are written.
const durationPattern = `^([0-9]*\.?[0-9]+(ms|s|m|h))+$`

// sourceDocs says what each kind of trigger takes in.
func sourceDocs() map[string]string {
	return map[string]string{
		functions.KindEvent:   "What is posted to /events.",
		functions.KindCron:    "The times of a schedule.",
		functions.KindWebhook: "Signed requests to /hooks/NAME.",
		functions.KindKafka:   "The records of a Kafka topic.",
		functions.KindNATS:    "The messages of an external NATS subject or JetStream stream.",
	}
}

// triggerSchema describes one trigger of the list, after the record that it becomes.
func triggerSchema() *schema {
	s := structSchema(reflect.TypeFor[functions.Trigger](), 0)
	s.Type = "object"
	kept := &orderedProps{}
	for i, name := range s.Properties.names {
		if notInFile(name) {
			continue
		}
		value := s.Properties.values[i]
		if doc, is := sourceDocs()[name]; is {
			value.Description = doc
			s.OneOf = append(s.OneOf, schema{Required: []string{name}})
		}
		kept.names, kept.values = append(kept.names, name), append(kept.values, value)
	}
	s.Properties, s.Required = kept, []string{"name"}
	return &s
}

// maxNesting is how deep filters within filters are described.
const maxNesting = 3

// structSchema describes a struct by its fields' names in JSON. One without a value is an empty one.
func structSchema(t reflect.Type, depth int) schema {
	s := schema{Type: []string{"object", "null"}, Properties: &orderedProps{}, Additional: false}
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		s.Properties.names = append(s.Properties.names, name)
		s.Properties.values = append(s.Properties.values, typeSchema(f.Type, depth))
		if !strings.Contains(opts, "omit") && name != "" {
			s.Required = append(s.Required, name)
		}
	}
	slices.Sort(s.Required)
	return s
}

func typeSchema(t reflect.Type, depth int) schema {
	if t == reflect.TypeFor[functions.Duration]() {
		return schema{Type: "string", Pattern: durationPattern}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), depth)
	case reflect.Bool:
		return schema{Type: "boolean"}
	case reflect.Int:
		return schema{Type: "integer"}
	case reflect.Slice:
		items := typeSchema(t.Elem(), depth+1)
		return schema{Type: "array", Items: &items}
	case reflect.Map:
		return schema{Type: "object", Additional: schema{Type: "string"}}
	case reflect.Struct:
		if depth > maxNesting {
			return schema{Type: "object"}
		}
		return structSchema(t, depth+1)
	default:
		return schema{Type: "string"}
	}
}
