//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "plain": 0o644, "b/run": 0o755, "b/other": 0o755} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "PATH=" + dir + "::" + dir + "/b"
	for _, c := range []struct {
		name      string
		env       []string
		want, why string
	}{
		{"run", []string{"PATH=/nowhere", path}, dir + "/run", ""},
		{"other", []string{"X=1", path}, dir + "/b/other", ""},
		{"plain", []string{path}, "", `exec: "plain": executable file not found in $PATH`},
		{"run", nil, "", `exec: "run": executable file not found in $PATH`},
		{"b", []string{path}, "", `exec: "b": executable file not found in $PATH`},
		{dir + "/b/run", nil, dir + "/b/run", ""},
		{dir + "/plain", nil, "", `exec: "` + dir + `/plain": permission denied`},
		{dir + "/b", nil, "", `exec: "` + dir + `/b": is a directory`},
		{dir + "/none", nil, "", `exec: "` + dir + `/none": stat ` + dir + `/none: no such file or directory`},
	} {
		if got, why := lookup(c.name, c.env); got != c.want || why != c.why {
			t.Errorf("%s with %q: %q, %q", c.name, c.env, got, why)
		}
	}
	for list, want := range map[string][]string{"": nil, ":": {"", ""}, "/a": {"/a"}, "/a:/b:": {"/a", "/b", ""}} {
		if got := split(list); !slices.Equal(got, want) {
			t.Errorf("%q: %q", list, got)
		}
	}
}
