package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"go.yaml.in/yaml/v3"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
)

func formats() []string { return []string{formatTable, formatWide, formatJSON, formatYAML, formatName} }

func knownFormat(f string) bool { return slices.Contains(formats(), f) }

// machine reports whether a program reads the output.
func (a *app) machine() bool { return a.output == formatJSON || a.output == formatYAML }

// column is one column of a table. The first one holds what other commands take as an argument.
type column[T any] struct {
	head string
	cell func(T) string
	// wide columns are shown with -o wide only.
	wide bool
	// num columns are aligned to the right.
	num bool
}

// list prints resources; empty says what to do where there are none.
func list[T any](a *app, items []T, name func(T) string, cols []column[T], empty string) error {
	switch a.output {
	case formatJSON, formatYAML:
		if items == nil {
			items = []T{}
		}
		return a.encode(items)
	case formatName:
		for _, i := range items {
			a.print("%s\n", name(i))
		}
		return nil
	}
	if len(items) == 0 {
		a.talk("%s\n", empty)
		return nil
	}
	cols = slices.DeleteFunc(slices.Clone(cols), func(c column[T]) bool { return c.wide && a.output != formatWide })
	t := a.newTable()
	head := table.Row{}
	var configs []table.ColumnConfig
	for n, c := range cols {
		head = append(head, c.head)
		if c.num {
			configs = append(configs, table.ColumnConfig{Number: n + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(head)
	for _, i := range items {
		row := table.Row{}
		for _, c := range cols {
			row = append(row, clean(c.cell(i)))
		}
		t.AppendRow(row)
	}
	a.render(t)
	return nil
}

// newTable is framed for people, and plain columns for programs that read lines.
func (a *app) newTable() table.Writer {
	t := table.NewWriter()
	style := table.StyleRounded
	if !a.outTTY {
		style = table.StyleLight
		style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
		style.Options = table.OptionsNoBordersAndSeparators
	}
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	return t
}

func (a *app) render(t table.Writer) {
	for line := range strings.SplitSeq(t.Render(), "\n") {
		a.print("%s\n", strings.TrimRight(line, " "))
	}
}

// field is one line of what show prints; one without a value is left out.
type field struct{ name, value string }

// show prints one resource.
func show[T any](a *app, item T, name string, fields []field) error {
	switch a.output {
	case formatJSON, formatYAML:
		return a.encode(item)
	case formatName:
		a.print("%s\n", name)
		return nil
	}
	width := 0
	for _, f := range fields {
		if f.value != "" {
			width = max(width, len(f.name))
		}
	}
	for _, f := range fields {
		for n, line := range strings.Split(strings.TrimRight(f.value, "\n"), "\n") {
			head := f.name
			if n > 0 {
				head = ""
			}
			if f.value != "" {
				a.print("%s  %s\n", a.paint(a.outTTY, bold, fmt.Sprintf("%-*s", width, head)), clean(line))
			}
		}
	}
	return nil
}

// encode prints v as JSON or YAML.
func (a *app) encode(v any) error {
	if a.output == formatYAML {
		return writeYAML(a.stdout, v)
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fault.Wrap(fault.CodeInternal, err, "write the output")
	}
	return nil
}

// writeYAML writes what JSON would, with the fields in the same order.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.CodeInternal, err, "write the output")
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil { // JSON is YAML
		return fault.Wrap(fault.CodeInternal, err, "write the output")
	}
	plain(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return fault.Wrap(fault.CodeInternal, err, "write the output")
	}
	return enc.Close()
}

// plain drops the braces and quotes of JSON.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}

func (a *app) print(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// clean makes text of others safe for a terminal: it could carry control sequences.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// cleanLines is clean for text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for n, l := range lines {
		lines[n] = clean(l)
	}
	return strings.Join(lines, "\n")
}

type style string

const (
	bold  style = "\x1b[1m"
	dim   style = "\x1b[2m"
	red   style = "\x1b[1;31m"
	green style = "\x1b[32m"
	amber style = "\x1b[33m"
)

// paint colours s where the stream is a terminal that wants colours.
func (a *app) paint(tty bool, st style, s string) string {
	if !tty || a.noColor {
		return s
	}
	return string(st) + s + "\x1b[0m"
}
