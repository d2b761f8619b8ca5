//go:build linux

package containerd

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Whoever the image names, nothing runs as the node's root.
func TestResolveUser(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nworker:x:1234:1235::/home/worker:/bin/sh\n",
		"group":  "staff:x:77:worker\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	chosen := identityOf{uid: nobody, gid: nobody, home: "/tmp", chosen: true}
	for name, c := range map[string]struct{ without, with identityOf }{
		"":        {chosen, identityOf{home: "/root", mapped: true}},
		"root":    {chosen, identityOf{home: "/root", mapped: true}},
		"0:77":    {chosen, identityOf{gid: 77, home: "/root", mapped: true}},
		"toor":    {chosen, identityOf{home: "/", mapped: true}},
		"worker":  {without: identityOf{uid: 1234, gid: 1235, groups: []uint32{77}, home: "/home/worker"}},
		"4321:77": {without: identityOf{uid: 4321, gid: 77}},
	} {
		if c.with.uid == 0 && !c.with.mapped {
			c.with = c.without
		}
		for why, want := range map[string]identityOf{"there are no user namespaces": c.without, "": c.with} {
			d := &Driver{noRoot: why}
			if got, err := d.resolveUser(name, nil, []string{root}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q, %q: %+v, %v, not %+v", name, why, got, err, want)
			}
		}
	}
	if _, err := new(Driver).resolveUser("stranger", nil, []string{root}); !fault.Is(err, fault.CodeInvalidArtifact) {
		t.Errorf("a user that the image does not have: %v", err)
	}
}
