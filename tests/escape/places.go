//go:build linux

package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// places: a link in the image where a mount has to go leads the mount nowhere but into the image.
func (s *suite) places(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev", "tmp", "etc", "dev/shm", "etc/hosts", "etc/resolv.conf"} {
		for form, leading := range map[string]func(string) string{
			"absolute":     func(path string) string { return path },
			"relative":     func(path string) string { return strings.Repeat("../", 20) + strings.TrimPrefix(path, "/") },
			"through proc": func(path string) string { return "/proc/1/root" + path },
		} {
			t.Run(name+" "+form, func(t *testing.T) { s.place(t, name, leading) })
		}
	}
}

// place starts a function whose image has a link out of the sandbox at the place, and looks at what the link leads to.
func (s *suite) place(t *testing.T, name string, leading func(string) string) {
	outside := t.TempDir()
	for _, dir := range []string{"proc", "sys", "dev/shm", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(outside, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	mark := filepath.Join(outside, "tmp", "mark")
	empty := look(t, outside)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := look(t, outside)
	if empty == before {
		t.Fatal("a change outside is not noticed")
	}
	defer func() {
		if after := look(t, outside); after != before {
			t.Errorf("outside of the sandbox changed:\n%s\nwas\n%s", after, before)
		}
	}()

	var entries []sandboxtest.Entry
	if dir := filepath.Dir(name); dir != "." {
		entries = append(entries, sandboxtest.Entry{Name: dir + "/", Mode: 0o755})
	}
	entries = append(entries, sandboxtest.Entry{Name: name, Link: leading(filepath.Join(outside, name)), Mode: 0o777})
	spec := s.spec()
	spec.Artifact = s.Blobs.Put(t, s.imageWith(t, sandboxtest.Layer(t, entries...)))
	if _, err := s.Driver.Prepare(t.Context(), spec.Artifact); err != nil {
		if !fault.Is(err, fault.CodeInvalidArtifact) {
			t.Errorf("prepare: %v", err)
		}
		return
	}
	p, err := s.start(t, spec)
	if err != nil {
		return
	}
	p = s.serve(t, p)
	s.refused(t, p, "read", "path="+mark, "ENOENT")
}

// look describes a directory of the node: what lies in it, of whom, and what is mounted there.
func look(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&out, path, info.Mode())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+dir) {
			out.WriteString(line)
		}
	}
	return out.String()
}
