package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Code moves on: each mutation still finds what it breaks, once.
func TestEveryMutationHasItsPlace(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, m := range rows() {
		if names[m.name] {
			t.Errorf("%s is there twice", m.name)
		}
		names[m.name] = true
		content, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(content), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: %q is %d times in %s", m.name, m.old, n, m.file)
		}
	}
}
