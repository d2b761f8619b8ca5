package spec

import (
	"encoding/json"
	"fmt"
)

// schema is the part of JSON Schema that is used here; its fields are in the order in which they are written.
type schema struct {
	Schema      string        `json:"$schema,omitempty"`
	ID          string        `json:"$id,omitempty"`
	Title       string        `json:"title,omitempty"`
	Description string        `json:"description,omitempty"`
	Type        any           `json:"type,omitempty"`
	Pattern     string        `json:"pattern,omitempty"`
	Minimum     *int64        `json:"minimum,omitempty"`
	Maximum     *int64        `json:"maximum,omitempty"`
	Default     any           `json:"default,omitempty"`
	Items       *schema       `json:"items,omitempty"`
	Properties  *orderedProps `json:"properties,omitempty"`
	Additional  any           `json:"additionalProperties,omitempty"`
	Required    []string      `json:"required,omitempty"`
	Not         *schema       `json:"not,omitempty"`
	AllOf       []schema      `json:"allOf,omitempty"`
	OneOf       []schema      `json:"oneOf,omitempty"`
}

// orderedProps keeps the order of the table, which a map would lose.
type orderedProps struct {
	names  []string
	values []schema
}

// MarshalJSON writes the properties in order.
func (o orderedProps) MarshalJSON() ([]byte, error) {
	out := []byte("{")
	for i, name := range o.names {
		if i > 0 {
			out = append(out, ',')
		}
		value, err := json.Marshal(o.values[i])
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%q:", name)...)
		out = append(out, value...)
	}
	return append(out, '}'), nil
}

// Schema returns the JSON Schema of tatami.yaml, for editors.
func Schema() ([]byte, error) {
	defaults := New("")
	root := object(table(), defaults)
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.ID = "https://github.com/tatami-faas/tatami/raw/main/functions/spec/tatami.schema.json"
	root.Title = FileName
	root.Description = "A function and how it is run."
	root.Required = []string{"name"}
	root.AllOf = []schema{
		{Not: &schema{Required: []string{"image", "source"}}},
		{Not: &schema{Required: []string{"image", "handler"}}},
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(out, '\n'), nil
}

func object(fields []field, defaults *File) schema {
	props := &orderedProps{}
	for _, row := range fields {
		props.names = append(props.names, row.name)
		props.values = append(props.values, property(row, defaults))
	}
	return schema{Type: "object", Properties: props, Additional: false}
}

func property(row field, defaults *File) schema {
	s := schema{Description: row.doc, Pattern: row.pattern}
	switch row.kind {
	case section:
		s = object(row.fields, defaults)
		s.Description = row.doc
		s.Type = []string{"object", "null"}
		return s
	case words:
		s.Type, s.Items = []string{"array", "null"}, &schema{Type: []string{"string", "number", "boolean"}}
		return s
	case triggerList:
		s.Type, s.Items = []string{"array", "null"}, triggerSchema()
		return s
	case pairs:
		s.Type, s.Additional = []string{"object", "null"}, schema{Type: []string{"string", "number", "boolean"}}
		return s
	case boolean:
		s.Type, s.Default = "boolean", false
		return s
	case text:
		s.Type = "string"
		if v := *row.at(defaults).(*string); v != "" {
			s.Default = v
		}
		return s
	case number:
		s.Type, s.Minimum, s.Maximum = "integer", &row.lo, &row.hi
		if v, set := integer(row.at(defaults)); set && !row.unset {
			s.Default = v
		}
		return s
	case size:
		s.Type, s.Pattern = "string", `^[0-9]*\.?[0-9]+([KMGT]iB?|[kMGT]B?)$`
	case cpu:
		s.Type, s.Pattern = []string{"string", "number"}, `^([0-9]+m|[0-9]*\.?[0-9]+)$`
	case duration:
		s.Type, s.Pattern = "string", durationPattern
	}
	if v, set := integer(row.at(defaults)); set && !row.unset {
		s.Default = plain(row.kind, v).Value
	}
	return s
}
