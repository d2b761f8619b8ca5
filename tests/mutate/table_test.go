package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// A mutation's tests may take several times as long as they do without it, and no longer; those that would leave containers behind have longer.
func TestLimits(t *testing.T) {
	t.Parallel()
	tree := &tree{took: map[string]time.Duration{"./a:TestOne": 2 * time.Second, "./a:TestOther": time.Second, "./b:TestOne": time.Hour}}
	for _, c := range []struct {
		tests string
		want  time.Duration
	}{
		{"./a:TestOne", 30 * time.Second},
		{"./a:(TestOne|TestOther)", 35 * time.Second},
		{"./a", 35 * time.Second},
		{"./a:TestNew", 20 * time.Second},
		{"./b:TestOne", 3 * time.Minute},
		{"./tests/e2e TestOne", 3 * time.Minute},
	} {
		m := mutation{tests: c.tests}
		if got, err := tree.limit(m.target()); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.tests, got, err)
		}
	}
}

// What tests print tells how long each took, which failed, and which did not end.
func TestWhatTestsPrint(t *testing.T) {
	t.Parallel()
	out := "=== RUN   TestA\n--- PASS: TestA (0.07s)\n    --- PASS: TestA/sub (0.07s)\n--- FAIL: TestB (1.00s)\npanic: test timed out after 20s\n\trunning tests:\n\t\tTestC (20s)\n\n"
	if got := passedTest.FindAllStringSubmatch(out, -1); len(got) != 1 || got[0][1] != "TestA" || got[0][2] != "0.07s" {
		t.Errorf("passed: %q", got)
	}
	if got := failedTest.FindStringSubmatch(out); len(got) != 2 || got[1] != "TestB" {
		t.Errorf("failed: %q", got)
	}
	if got := runningTest.FindStringSubmatch(out); len(got) != 2 || got[1] != "TestC" {
		t.Errorf("does not end: %q", got)
	}
}
