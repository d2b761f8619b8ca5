package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxTriggers is how many triggers one file declares at most.
const maxTriggers = 100

// triggers reads the list of a function's triggers.
func (d *decoder) triggers(path string, row field, n *yaml.Node, f *File) {
	if n.Kind != yaml.SequenceNode {
		d.mismatch(path, row, n)
		return
	}
	if len(n.Content) > maxTriggers {
		d.note(markOf(n), path, "%d are more than %d", len(n.Content), maxTriggers)
		return
	}
	var out []functions.Trigger
	seen := map[string]bool{}
	for i, c := range n.Content {
		t, ok := d.trigger(fmt.Sprintf("%s[%d]", path, i), c)
		if ok && seen[t.Name] {
			d.note(markOf(c), path, "two triggers are called %s", t.Name)
		}
		seen[t.Name] = true
		out = append(out, t)
	}
	*row.at(f).(*[]functions.Trigger) = out
}

// trigger reads one trigger, or notes why it cannot be read.
func (d *decoder) trigger(path string, n *yaml.Node) (functions.Trigger, bool) {
	t, err := decodeTrigger(n)
	if err == nil {
		// The file says whose the trigger is by where it stands.
		whole := t
		whole.Function = "function"
		whole = whole.WithDefaults()
		err = whole.Validate()
	}
	if err == nil {
		return t, true
	}
	field, message, hint := "", err.Error(), ""
	if f := fault.From(err); f != nil {
		field, message, hint = f.Field, f.Message, f.Hint
	}
	d.note(placeOf(n, field), path+"."+field, "%s: %s", path, message).Hint = hint
	return t, false
}

// ParseTrigger reads a file that describes one trigger.
func ParseTrigger(data []byte) (functions.Trigger, error) {
	if len(data) > MaxSize {
		return functions.Trigger{}, tooLarge("the file", int64(len(data)))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return functions.Trigger{}, fault.New(fault.CodeInvalidSpec, "it is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) != 1 || firstAnchor(&doc) != nil {
		return functions.Trigger{}, fault.New(fault.CodeInvalidSpec, "it must consist of fields such as `name: orders`, without anchors")
	}
	return decodeTrigger(doc.Content[0])
}

// decodeTrigger reads a trigger as its record is written in JSON, strictly. A source without settings may be written without a value.
func decodeTrigger(n *yaml.Node) (functions.Trigger, error) {
	var t functions.Trigger
	if n.Kind != yaml.MappingNode {
		return t, fault.New(fault.CodeInvalidSpec, "it must be a section of fields such as `name: orders`")
	}
	var v map[string]any
	if err := n.Decode(&v); err != nil {
		return t, fault.New(fault.CodeInvalidSpec, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	for name, value := range v {
		if value == nil {
			v[name] = map[string]any{}
		}
		if notInFile(name) {
			return t, fault.New(fault.CodeInvalidSpec, "%s is not for a file to say", name).WithField(name)
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return t, fault.New(fault.CodeInvalidSpec, "the names of fields must be texts")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return functions.Trigger{}, jsonProblem(err)
	}
	return t, nil
}

// notInFile reports whether a field of a trigger's record is not for a file to say.
func notInFile(name string) bool {
	switch name {
	case "schema", "namespace", "function", "declared", "created", "updated":
		return true
	}
	return false
}

// jsonProblem says what the decoder of JSON found in the words of the file.
func jsonProblem(err error) error {
	message := strings.TrimPrefix(err.Error(), "json: ")
	var e *json.UnmarshalTypeError
	switch found := regexp.MustCompile(`unknown field "(.*)"`).FindStringSubmatch(message); {
	case found != nil:
		return fault.New(fault.CodeInvalidSpec, "unknown field %q", clip(found[1])).WithField(found[1])
	case errors.As(err, &e):
		return fault.New(fault.CodeInvalidSpec, "%s must not be a %s", e.Field, e.Value).WithField(e.Field)
	}
	return fault.New(fault.CodeInvalidSpec, "%s", message)
}

var step = regexp.MustCompile(`[^.\[\]]+`)

// placeOf is where a field stands, as far as it is there: filters[0].exact, or a name somewhere below n.
func placeOf(n *yaml.Node, field string) mark {
	at, place := n, markOf(n)
	for _, s := range step.FindAllString(field, -1) {
		next := (*yaml.Node)(nil)
		switch at.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(at.Content); i += 2 {
				if at.Content[i].Value == s {
					next, place = at.Content[i+1], markOf(at.Content[i])
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(s); err == nil && i < len(at.Content) {
				next, place = at.Content[i], markOf(at.Content[i])
			}
		}
		if next == nil {
			if key := keyBelow(at, s); key != nil {
				return markOf(key)
			}
			return place
		}
		at = next
	}
	return place
}

// keyBelow finds a key somewhere below n.
func keyBelow(n *yaml.Node, name string) *yaml.Node {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Value == name {
				return c
			}
			continue
		}
		if found := keyBelow(c, name); found != nil {
			return found
		}
	}
	return nil
}

// triggersNode writes triggers; nil where there are none.
func triggersNode(ts []functions.Trigger) *yaml.Node {
	if len(ts) == 0 {
		return nil
	}
	data, err := json.Marshal(ts)
	var doc yaml.Node
	if err != nil || yaml.Unmarshal(data, &doc) != nil {
		return nil
	}
	list := doc.Content[0]
	blockStyle(list)
	return list
}

// blockStyle drops the braces and quotes of JSON where YAML needs none.
func blockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		*n = *str(n.Value)
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}
