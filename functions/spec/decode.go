package spec

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// mark is a place in the file, both numbers beginning at 1.
type mark struct{ line, column, width int }

func markOf(n *yaml.Node) mark {
	m := mark{line: max(n.Line, 1), column: max(n.Column, 1), width: 1}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 && !strings.ContainsAny(n.Value, "\r\n") {
		m.width = max(utf8.RuneCountInString(n.Value), 1)
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			m.width += 2
		}
	}
	return m
}

// decoder walks the nodes of a file and collects what is wrong.
type decoder struct {
	file     string
	lines    []string
	problems []Problem
	// marks says where each field's value stands.
	marks map[string]mark
	spare Problem
}

// note adds a problem and returns it for a hint to be set.
func (d *decoder) note(m mark, field, format string, args ...any) *Problem {
	p := Problem{File: d.file, Line: max(m.line, 1), Column: max(m.column, 1), Width: max(m.width, 1), Field: printable(field), Message: printable(fmt.Sprintf(format, args...))}
	if p.Line <= len(d.lines) {
		p.Source = d.lines[p.Line-1]
	}
	if len(d.problems) >= maxProblems {
		return &d.spare
	}
	d.problems = append(d.problems, p)
	return &d.problems[len(d.problems)-1]
}

// printable replaces what could steer the reader's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

// bad reports whether the field has a problem already.
func (d *decoder) bad(field string) bool {
	for _, p := range d.problems {
		if p.Field == field {
			return true
		}
	}
	return false
}

// sound reports whether the field is written and has no problem so far.
func (d *decoder) sound(field string) bool {
	_, given := d.marks[field]
	return given && !d.bad(field)
}

// section reads a mapping whose keys are fields of the table.
func (d *decoder) section(n *yaml.Node, prefix string, fields []field, f *File) {
	d.each(n, prefix, func(key, value *yaml.Node) {
		for _, row := range fields {
			if row.name == key.Value {
				d.marks[prefix+row.name] = markOf(value)
				d.value(prefix+row.name, row, value, f)
				return
			}
		}
		message := fmt.Sprintf("unknown field %q", clip(key.Value))
		if prefix != "" {
			message += " in " + strings.TrimSuffix(prefix, ".")
		}
		if meant := suggest(key.Value, prefix, fields); meant != "" {
			message += fmt.Sprintf("; did you mean %s?", meant)
		}
		d.note(markOf(key), prefix+clip(key.Value), "%s", message)
	})
}

// each calls visit for every key of a mapping that is a plain text and was not there before.
func (d *decoder) each(n *yaml.Node, prefix string, visit func(key, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 {
			d.note(markOf(key), "", "a field's name must be a plain text")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			d.note(markOf(key), prefix+clip(key.Value), "%s is given twice, first in line %d", clip(prefix+key.Value), line)
			continue
		}
		seen[key.Value] = key.Line
		visit(key, value)
	}
}

// value reads one field into f, or notes why it cannot be read.
func (d *decoder) value(path string, row field, n *yaml.Node, f *File) {
	if n.Style&yaml.TaggedStyle != 0 {
		d.note(markOf(n), path, "%s: tags such as %s are not supported", path, clip(n.Tag))
		return
	}
	empty := n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
	switch row.kind {
	case section, pairs, words, triggerList:
		// All lines below may have been commented out.
		if empty && n.Value == "" {
			return
		}
	default:
		if empty {
			d.note(markOf(n), path, "%s has no value; it needs %s", path, row.kind.wants())
			return
		}
	}
	switch row.kind {
	case section:
		if n.Kind != yaml.MappingNode {
			d.mismatch(path, row, n)
			return
		}
		d.section(n, path+".", row.fields, f)
	case triggerList:
		d.triggers(path, row, n, f)
	case pairs:
		d.pairs(path, row, n, f)
	case words:
		d.words(path, row, n, f)
	default:
		if n.Kind != yaml.ScalarNode {
			d.mismatch(path, row, n)
			return
		}
		d.scalar(path, row, n, f)
	}
}

func (d *decoder) scalar(path string, row field, n *yaml.Node, f *File) {
	tag := n.ShortTag()
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	at := row.at(f)
	switch row.kind {
	case text:
		if tag != "!!str" {
			d.mismatch(path, row, n).Hint = fmt.Sprintf("put it in quotes: %s: %q", row.name, clip(n.Value))
			return
		}
		if strings.ContainsRune(n.Value, 0) {
			d.note(markOf(n), path, "%s holds a NUL byte", path)
			return
		}
		*at.(*string) = n.Value
	case number:
		var v int64
		if tag != "!!int" || n.Decode(&v) != nil || v != int64(int(v)) {
			p := d.mismatch(path, row, n)
			if quoted {
				p.Hint = "write it without quotes"
			}
			return
		}
		d.number(path, row, n, at, v)
	case boolean:
		var v bool
		if tag != "!!bool" || n.Decode(&v) != nil {
			d.mismatch(path, row, n)
			return
		}
		*at.(*bool) = v
	case size, cpu, duration:
		if tag != "!!str" && tag != "!!int" && tag != "!!float" {
			d.mismatch(path, row, n)
			return
		}
		var v int64
		var err error
		switch row.kind {
		case size:
			v, err = parseSize(n.Value)
		case cpu:
			v, err = parseCPU(n.Value)
		default:
			var dur, e = parseDuration(n.Value)
			v, err = int64(dur), e
		}
		if err != nil {
			d.note(markOf(n), path, "%s: %s", path, err)
			return
		}
		d.number(path, row, n, at, v)
	}
}

// number sets a number, unless it is a zero out of bounds that functions.Config would take for one that is not set.
func (d *decoder) number(path string, row field, n *yaml.Node, at any, v int64) {
	if row.unset && v == 0 && row.lo > 0 {
		d.note(markOf(n), path, "%s: %s is not between %s and %s", path, plain(row.kind, 0).Value, plain(row.kind, row.lo).Value, plain(row.kind, row.hi).Value)
		return
	}
	setInteger(at, v)
}

func (d *decoder) words(path string, row field, n *yaml.Node, f *File) {
	if n.Kind != yaml.SequenceNode {
		p := d.mismatch(path, row, n)
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			quoted := make([]string, 0, 8)
			for _, w := range strings.Fields(clip(n.Value)) {
				quoted = append(quoted, fmt.Sprintf("%q", w))
			}
			p.Hint = fmt.Sprintf("write `%s: [%s]`; there is no shell", row.name, strings.Join(quoted, ", "))
		}
		return
	}
	out := make([]string, 0, len(n.Content))
	for i, c := range n.Content {
		if c.Kind != yaml.ScalarNode || c.ShortTag() == "!!null" || c.Style&yaml.TaggedStyle != 0 {
			d.note(markOf(c), path, "word %d of %s is %s; it must be a text", i+1, path, describe(c))
			continue
		}
		out = append(out, c.Value)
	}
	if len(out) > 0 {
		*row.at(f).(*[]string) = out
	}
}

func (d *decoder) pairs(path string, row field, n *yaml.Node, f *File) {
	if n.Kind != yaml.MappingNode {
		p := d.mismatch(path, row, n)
		if n.Kind == yaml.SequenceNode {
			p.Hint = fmt.Sprintf("write one `NAME: value` per line below %s:, without dashes", row.name)
		}
		return
	}
	out := make(map[string]string, len(n.Content)/2)
	d.each(n, path+".", func(key, value *yaml.Node) {
		at := path + "." + key.Value
		d.marks[at] = markOf(key)
		switch {
		case value.Kind != yaml.ScalarNode || value.Style&yaml.TaggedStyle != 0:
			d.note(markOf(value), at, "%s must be a text, not %s", clip(at), describe(value))
		case value.ShortTag() == "!!null":
			d.note(markOf(key), at, `%s has no value; write "" for an empty one`, clip(at))
		default:
			// As it is written: 1.10 stays 1.10 and yes stays yes.
			out[key.Value] = value.Value
		}
	})
	if len(out) > 0 {
		*row.at(f).(*map[string]string) = out
	}
}

func (d *decoder) mismatch(path string, row field, n *yaml.Node) *Problem {
	return d.note(markOf(n), path, "%s must be %s, not %s", path, row.kind.wants(), describe(n))
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a section"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return clip(n.Value)
	case "!!null":
		return "nothing"
	}
	return fmt.Sprintf("the text %q", clip(n.Value))
}

// splitLines cuts the file where the YAML parser counts a line.
func splitLines(data []byte) []string {
	text := strings.TrimPrefix(string(data), "\uFEFF")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(text)
	return strings.Split(text, "\n")
}
