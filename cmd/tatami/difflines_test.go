package main

import (
	"strings"
	"testing"
)

func TestDiffLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""},
		{"a", "a", "..."},
		{"a", "", "- a"},
		{"", "a", "+ a"},
		{"a b c", "a x c", "  a|- b|+ x|  c"},
		{"1 2 3 4 5 6", "1 2 3 4 5 7", "...|  4|  5|- 6|+ 7"},
		{"a b c d", "b c a d", "- a|  b|  c|+ a|  d"},
		{"x 1 2 3 4 5 6 y", "z 1 2 3 4 5 6 w", "- x|+ z|  1|  2|...|  5|  6|- y|+ w"},
	} {
		if got := strings.Join(diffLines(strings.Fields(c.a), strings.Fields(c.b)), "|"); got != c.want {
			t.Errorf("%q and %q: %q, want %q", c.a, c.b, got, c.want)
		}
	}
	long := strings.Fields(strings.Repeat("a ", mostDiffed+1))
	if got := diffLines(append([]string{"x"}, long...), append([]string{"y"}, long...)); got[0] != "- x" || got[1] != "+ y" || len(got) != 5 {
		t.Errorf("%d lines: %q", len(got), got[:2])
	}
}
