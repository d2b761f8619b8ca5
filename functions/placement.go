package functions

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Placement says which nodes a function's instances run on. Values of labels may be several with commas between them, of which one is enough; an
// empty one is any.
type Placement struct {
	// Spread keeps the instances apart: SpreadZone or SpreadNode; empty packs them.
	Spread string `json:"spread,omitempty"`
	// Require names labels that a node must have, Avoid those that it must not have.
	Require map[string]string `json:"require,omitempty"`
	Avoid   map[string]string `json:"avoid,omitempty"`
	// Prefer names labels that a node should have: each counts as much as the others, and all together as a quarter of a node's room.
	Prefer map[string]string `json:"prefer,omitempty"`
	// Near names functions of the namespace whose nodes are preferred: one that hosts an instance of them may be an eighth of its room less tight. Apart
	// names those whose nodes are avoided where another one has room. KEY=VALUE stands for all other functions of the namespace with that label.
	Near  []string `json:"near,omitempty"`
	Apart []string `json:"apart,omitempty"`
}

// What instances may be spread over.
const (
	SpreadZone = "zone"
	SpreadNode = "node"
)

// LabelZone is the label of a node that says which part of the site fails together with it.
const LabelZone = "zone"

// maxPlacementLabels bounds the labels that a function's placement names, maxPlacementFunctions the functions.
const (
	maxPlacementLabels    = 16
	maxPlacementFunctions = 8

	maxLabelKey, maxLabelValue = 63, 255
)

func (p Placement) problems() []*fault.Error {
	var out []*fault.Error
	bad := func(field, format string, args ...any) {
		out = append(out, fault.New(fault.CodeInvalidSpec, format, args...).WithField("placement."+field))
	}
	switch p.Spread {
	case "", SpreadZone, SpreadNode:
	default:
		bad("spread", "%.40q is neither %s nor %s", p.Spread, SpreadZone, SpreadNode)
	}
	if n := len(p.Require) + len(p.Avoid) + len(p.Prefer); n > maxPlacementLabels {
		bad("require", "placement names %d labels, %d are allowed", n, maxPlacementLabels)
	}
	for _, part := range []struct {
		field  string
		labels map[string]string
	}{{"require", p.Require}, {"avoid", p.Avoid}, {"prefer", p.Prefer}} {
		for _, k := range slices.Sorted(maps.Keys(part.labels)) {
			if err := CheckNodeLabel(k, part.labels[k]); err != nil {
				bad(part.field+"."+k, "%s", err)
			}
		}
	}
	for field, names := range map[string][]string{"near": p.Near, "apart": p.Apart} {
		if len(names) > maxPlacementFunctions {
			bad(field, "%d functions are named, %d are allowed", len(names), maxPlacementFunctions)
		}
		for _, name := range names {
			if key, value, ok := FunctionLabel(name); ok {
				if key == "" || value == "" || len(key) > maxLabelKey || len(value) > maxLabelValue {
					bad(field, "%.80q is no label of functions: want KEY=VALUE", name)
				}
			} else if err := ValidateName("placement."+field, name); err != nil {
				bad(field, "%.80q is neither a function's name nor a label, KEY=VALUE", name)
			}
			if field == "apart" && slices.Contains(p.Near, name) {
				bad(field, "%s cannot be near and apart", name)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(p.Avoid)) {
		if v, both := p.Require[k]; both && (p.Avoid[k] == "" || p.Avoid[k] == v) {
			bad("avoid."+k, "no node can have what is required and not have it")
		}
	}
	return out
}

// FunctionLabel reads what Near and Apart have for the functions with a label; false for the name of one.
func FunctionLabel(s string) (key, value string, ok bool) { return strings.Cut(s, "=") }

// CheckNodeLabel reports why a node's label cannot be, if it cannot.
func CheckNodeLabel(key, value string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./", r)
	}
	switch {
	case key == "" || len(key) > maxLabelKey || len(value) > maxLabelValue:
		return fmt.Errorf("a label's key has 1 to 63 bytes and its value at most 255")
	case strings.ContainsFunc(key, func(r rune) bool { return !plain(r) }):
		return fmt.Errorf("a node's label has letters, digits and -_./ in its key")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("a label's value has no control characters")
	}
	return nil
}
