package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/name"
	"go.yaml.in/yaml/v3"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Parse reads the content of a tatami.yaml. The file's name is for messages and for SourcePath. The error is a *Error that lists every
// problem, or a fault for a file too large to read.
func Parse(file string, data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, tooLarge(file, int64(len(data)))
	}
	d := &decoder{file: file, lines: splitLines(data), marks: map[string]mark{}}
	root := d.document(data)
	if root == nil {
		return nil, newError(file, d.problems)
	}
	f := &File{Path: file}
	d.section(root, "", table(), f)
	// Once more over the defaults: a zero that the file spells out must be judged, not replaced.
	f.Config = f.Config.WithDefaults()
	again := &decoder{lines: d.lines, marks: map[string]mark{}}
	again.section(root, "", table(), f)

	d.combination(f)
	d.config(f)
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Column - b.Column
		})
		return nil, newError(file, d.problems)
	}
	// A default that is spelled out is written as the default is.
	f.Config = f.Config.WithDefaults()
	return f, nil
}

// document parses the YAML itself and returns its one mapping, or nil after having noted why there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	if !utf8.Valid(data) {
		for i, line := range d.lines {
			if at := strings.IndexFunc(line, func(r rune) bool { return r == utf8.RuneError }); at >= 0 && !utf8.ValidString(line) {
				d.note(mark{line: i + 1, column: utf8.RuneCountInString(line[:at]) + 1}, "", "this is not UTF-8 text")
				return nil
			}
		}
		d.note(mark{line: 1, column: 1}, "", "this is not UTF-8 text")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.note(mark{line: 1, column: 1}, "name", "the file is empty; at least name is needed")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	var next yaml.Node
	switch err := decoder.Decode(&next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
		return nil
	default:
		d.note(markOf(&next), "", "a second document begins here; one file describes one function")
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		d.note(markOf(&doc), "", "the file must consist of fields such as `name: hello`")
		return nil
	}
	if n := firstAnchor(&doc); n != nil {
		d.note(markOf(n), "", "anchors, aliases and merge keys are not supported; write the value out")
		return nil
	}
	return doc.Content[0]
}

// syntax notes what the YAML parser said. It names a line at most.
func (d *decoder) syntax(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	m := mark{line: 1, column: 1}
	if found := regexp.MustCompile(`line (\d+):\s*`).FindStringSubmatchIndex(message); found != nil {
		if n, err := strconv.Atoi(message[found[2]:found[3]]); err == nil {
			m.line = min(max(n, 1), max(len(d.lines), 1))
		}
		message = message[:found[0]] + message[found[1]:]
	}
	if m.line <= len(d.lines) {
		line := d.lines[m.line-1]
		m.column = len(line) - len(strings.TrimLeft(line, " ")) + 1
		for i := max(m.line-2, 0); i <= min(m.line, len(d.lines)-1); i++ {
			if trimmed := strings.TrimLeft(d.lines[i], " "); strings.HasPrefix(trimmed, "\t") {
				m = mark{line: i + 1, column: len(d.lines[i]) - len(trimmed) + 1}
				message = "a tab cannot indent YAML; use spaces"
				break
			}
		}
	}
	d.note(m, "", "not valid YAML: %s", message)
}

func firstAnchor(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge" {
		return n
	}
	for _, c := range n.Content {
		if found := firstAnchor(c); found != nil {
			return found
		}
	}
	return nil
}

// combination judges the fields that only make sense, or only none, together, and those that functions.Config does not know.
func (d *decoder) combination(f *File) {
	if _, given := d.marks["name"]; !given {
		d.note(mark{line: 1, column: 1}, "name", "name is missing")
	} else if !d.bad("name") {
		d.checkName("name", "function", f.Name)
	}
	if d.sound("namespace") {
		d.checkName("namespace", "namespace", f.Namespace)
	}
	_, image := d.marks["image"]
	for _, other := range []string{"source", "handler"} {
		if m, given := d.marks[other]; given && image {
			d.note(m, other, "%s and image exclude each other: an image is already built", other)
		}
	}
	if d.sound("image") {
		file := strings.HasPrefix(f.Image, ".") || strings.HasPrefix(f.Image, "/")
		if _, err := name.ParseReference(f.Image); err != nil || file || f.Image == "" {
			p := d.note(d.marks["image"], "image", "%q is no image reference such as registry.example/team/app:1.2", clip(f.Image))
			if file {
				p.Hint = "this is a path: write source instead of image"
			}
		}
	}
	if d.sound("source") && (f.Source == "" || strings.ContainsRune(f.Source, 0)) {
		d.note(d.marks["source"], "source", "source is empty; write . for this directory")
	}
	if d.sound("handler") {
		clean := path.Clean(f.Handler)
		if f.Handler == "" || strings.ContainsAny(f.Handler, "\\\x00 @") || strings.Contains(f.Handler, "...") || path.IsAbs(f.Handler) ||
			clean == ".." || strings.HasPrefix(clean, "../") || strings.HasSuffix(clean, ".go") {
			d.note(d.marks["handler"], "handler", "%q is no directory of a Go package below source, such as ./cmd/hello", clip(f.Handler))
		}
		f.Handler = clean
	}
	if !image {
		if f.Source == "" {
			f.Source = "."
		}
		if f.Handler == "" {
			f.Handler = "."
		}
	}
}

func (d *decoder) checkName(at, what, value string) {
	err := functions.ValidateName(what, value)
	if err == nil {
		return
	}
	p := d.note(d.marks[at], at, "%s", fault.From(err).Message)
	p.Hint = fault.From(err).Hint
	if ref, err := functions.ParseRef(value); err == nil && at == "name" {
		p.Hint = fmt.Sprintf("write `name: %s` and `namespace: %s`", ref.Name, ref.Namespace)
	}
}

// config notes what functions.Config finds, at the place where the file says it.
func (d *decoder) config(f *File) {
	for _, p := range f.Config.Problems() {
		m, written := d.marks[p.Field]
		if !written {
			// A default that follows from a field that is wrong itself; that one has its own problem.
			if len(d.problems) > 0 {
				continue
			}
			m = mark{line: 1, column: 1}
		}
		if d.bad(p.Field) {
			continue
		}
		note := d.note(m, p.Field, "%s", p.Message)
		note.Hint = p.Hint
	}
}
