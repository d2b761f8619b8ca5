package spec

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tatami-faas/tatami/functions"
)

// Marshal writes the file so that Parse reads the same again. Fields that have their default are left out.
func Marshal(f *File) ([]byte, error) {
	defaults := New(f.Name)
	// Max follows these three.
	scale := f.Config.Scale
	defaults.Config = functions.Config{Scale: functions.Scale{Min: scale.Min, Initial: scale.Initial, Reserved: scale.Reserved}}.WithDefaults()
	defaults.Config.Scale.Min, defaults.Config.Scale.Initial, defaults.Config.Scale.Reserved = 0, 0, 0
	// The least alone is a fixed time.
	switch {
	case scale.KeepAliveMax == 0:
		defaults.Config.Scale.KeepAlive, defaults.Config.Scale.KeepAliveMax = 0, 0
	case scale.KeepAlive != defaults.Config.Scale.KeepAlive:
		defaults.Config.Scale.KeepAliveMax = 0
	}
	full := *f
	full.Config = f.Config.WithDefaults()
	root := mapping(table(), &full, defaults)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("write %s: %w", FileName, err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("write %s: %w", FileName, err)
	}
	return b.Bytes(), nil
}

func mapping(fields []field, f, defaults *File) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, row := range fields {
		var value *yaml.Node
		if row.kind == section {
			if value = mapping(row.fields, f, defaults); len(value.Content) == 0 {
				continue
			}
		} else {
			if row.name != "name" && reflect.DeepEqual(row.at(f), row.at(defaults)) {
				continue
			}
			if value = node(row, f); value == nil {
				continue
			}
		}
		out.Content = append(out.Content, str(row.name), value)
	}
	return out
}

// node writes a field's value; nil for one that is not set.
func node(row field, f *File) *yaml.Node {
	at := row.at(f)
	switch row.kind {
	case text:
		if s := *at.(*string); s != "" {
			return str(s)
		}
	case words:
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
		for _, w := range *at.(*[]string) {
			list.Content = append(list.Content, str(w))
		}
		if len(list.Content) > 0 {
			return list
		}
	case triggerList:
		return triggersNode(*at.(*[]functions.Trigger))
	case pairs:
		m := *at.(*map[string]string)
		out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out.Content = append(out.Content, str(k), str(m[k]))
		}
		if len(out.Content) > 0 {
			return out
		}
	case boolean:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(*at.(*bool))}
	default:
		v, set := integer(at)
		if !set {
			return nil
		}
		return plain(row.kind, v)
	}
	return nil
}

func plain(k kind, v int64) *yaml.Node {
	switch k {
	case size:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: formatSize(v)}
	case cpu:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: formatCPU(v)}
	case duration:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: functions.Duration(v).String()}
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v, 10)}
	}
}

// str writes a text; one with anything but plain characters is quoted, for block styles do not keep every space and tab.
func str(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(s) != s {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
