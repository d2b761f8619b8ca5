package jobs

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// WriteHCL writes a job as `nomad job run` reads it. The client's own types say by their tags how: what has no tag, or is unset, is left out.
func WriteHCL(w io.Writer, j *api.Job) error {
	p := &printer{}
	p.open("job", *j.ID)
	p.body(reflect.ValueOf(j).Elem())
	p.close()
	_, err := w.Write(p.out.Bytes())
	return err
}

type printer struct {
	out   bytes.Buffer
	depth int
	// blank asks for an empty line before the next block.
	blank bool
}

func (p *printer) line(format string, args ...any) {
	p.out.WriteString(strings.Repeat("  ", p.depth))
	fmt.Fprintf(&p.out, format+"\n", args...)
	p.blank = true
}

func (p *printer) open(name string, labels ...string) {
	if p.blank {
		p.out.WriteByte('\n')
	}
	for _, l := range labels {
		name += " " + strconv.Quote(l)
	}
	p.line("%s {", name)
	p.depth++
	p.blank = false
}

func (p *printer) close() {
	p.depth--
	p.line("}")
}

// attribute is one that is printed, block one that is nested.
type attribute struct {
	name  string
	value reflect.Value
}

// body prints the attributes of a struct, aligned, and then its blocks.
func (p *printer) body(v reflect.Value) {
	var attributes, blocks []attribute
	for i := range v.NumField() {
		name, kind, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ",")
		f := v.Field(i)
		for f.Kind() == reflect.Pointer && !f.IsNil() {
			f = f.Elem()
		}
		if name == "" || name == "id" || f.IsZero() && v.Field(i).Kind() != reflect.Pointer || f.Kind() == reflect.Pointer {
			continue
		}
		switch {
		case kind == "block":
			blocks = append(blocks, attribute{name, f})
		case (kind == "optional" || kind == "") && (name != "name" || v.Type() != reflect.TypeFor[api.Job]()):
			// A job's name is its label. Without a word an attribute must be there.
			attributes = append(attributes, attribute{name, f})
		}
	}
	p.attributes(attributes)
	for _, b := range blocks {
		p.blocks(b)
	}
}

func (p *printer) attributes(list []attribute) {
	for len(list) > 0 {
		// As `nomad fmt` has it: a list of several lines stands for itself, the attributes between such lists are aligned.
		n, width := 0, 0
		for n < len(list) && !p.tall(list[n]) {
			width = max(width, len(list[n].name))
			n++
		}
		for _, a := range list[:n] {
			p.line("%-*s = %s", width, a.name, p.value(a.value))
		}
		if n < len(list) {
			p.line("%s = %s", list[n].name, p.value(list[n].value))
			n++
		}
		list = list[n:]
	}
}

// tall reports whether an attribute is a list of several lines.
func (p *printer) tall(a attribute) bool {
	text := p.value(a.value)
	return strings.HasPrefix(text, "[") && strings.Contains(text, "\n")
}

// blocks prints what a field holds: one block, one for each element, or a map.
func (p *printer) blocks(b attribute) {
	name := b.name
	if name == "reserved_ports" {
		// The language has one block for ports of either kind.
		name = "port"
	}
	switch b.value.Kind() {
	case reflect.Slice:
		for i := range b.value.Len() {
			p.blocks(attribute{name, reflect.Indirect(b.value.Index(i))})
		}
	case reflect.Map:
		p.open(name)
		var entries []attribute
		keys := map[string]reflect.Value{}
		for _, k := range b.value.MapKeys() {
			keys[k.String()] = b.value.MapIndex(k)
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			entries = append(entries, attribute{k, keys[k]})
		}
		p.attributes(entries)
		p.close()
	case reflect.Struct:
		p.open(name, label(b.value)...)
		p.body(b.value)
		p.close()
	}
}

// label is what stands between a block's name and its brace.
func label(v reflect.Value) []string {
	for i := range v.NumField() {
		if _, kind, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ","); kind == "label" {
			return []string{reflect.Indirect(v.Field(i)).String()}
		}
	}
	return nil
}

func (p *printer) value(v reflect.Value) string {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if d, is := v.Interface().(time.Duration); is {
		return strconv.Quote(d.String())
	}
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); strings.HasSuffix(s, "\n") {
			return "<<EOT\n" + s + "EOT"
		}
		return strconv.Quote(v.String())
	case reflect.Slice:
		return p.list(v)
	default:
		return fmt.Sprint(v.Interface())
	}
}

// list prints a short list on one line, and a command line with a flag and its value on each.
func (p *printer) list(v reflect.Value) string {
	var items []string
	for i := range v.Len() {
		items = append(items, p.value(v.Index(i)))
	}
	if len(items) < 4 {
		return "[" + strings.Join(items, ", ") + "]"
	}
	in := strings.Repeat("  ", p.depth+1)
	var b strings.Builder
	b.WriteString("[")
	for _, item := range items {
		between := " "
		if strings.HasPrefix(item, `"--`) || b.Len() == 1 {
			between = "\n" + in
		}
		b.WriteString(between + item + ",")
	}
	return b.String() + "\n" + strings.Repeat("  ", p.depth) + "]"
}
