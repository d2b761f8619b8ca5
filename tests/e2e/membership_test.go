//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// Each worker joins with a token of its own, once. One whose token is revoked is cut off, ends with its instances, which are replaced, and cannot come
// back; a node that is removed neither. All of that is in the audit log.
func TestWorkersAreMembers(t *testing.T) {
	f := newFleetOf(t, nil)
	token := func(name string) (file, id string) {
		t.Helper()
		file = filepath.Join(t.TempDir(), name)
		f.Must("token", "create", "--node", name, "--file", file)
		var all []v1.NodeToken
		list(t, f.Server, &all, "token", "ls")
		for _, tok := range all {
			if tok.Node == name {
				id = tok.ID
			}
		}
		return file, id
	}
	grants := []string{"--grant-cpu", "1", "--grant-memory", "512Mi", "--sandbox-pool", "0", "--keep-instances"}
	file, id := token("first")
	first := harness.Join(t, f.Server, f.addr, append(grants, "--token-file", file)...)
	f.Deploy("steady", "probe", small+"scale: {min: 2, max: 2}\n")
	eventually(t, 30*time.Second, "the first has both", func() bool { return f.on("steady")[first.Name] == 2 })
	if r := f.CLI("worker", "--join", "nats://"+f.addr, "--token-file", file, "--data-dir", t.TempDir(), "--run-dir", filepath.Dir(first.RunDir)+"/x"); r.Exit != 5 {
		t.Errorf("another worker with the same token ended with %d: %s", r.Exit, r.Stderr)
	}
	other, _ := token("second")
	second := harness.Join(t, f.Server, f.addr, append(grants, "--token-file", other)...)
	eventually(t, 30*time.Second, "both show", func() bool { return len(f.nodes()) == 2 })

	f.Must("token", "revoke", id)
	eventually(t, 30*time.Second, "what ran on the first is replaced", func() bool {
		on := f.on("steady")
		return on[second.Name] == 2 && total(on) == 2 && len(f.nodes()) == 1
	})
	f.callAll("steady", 2)
	if code := first.Wait(); code != 5 {
		t.Errorf("the worker that was cut off ended with %d", code)
	}
	if n := sandboxes(t, first); n != 0 {
		t.Errorf("it left %d sandboxes", n)
	}
	if err := first.TryLaunch(); err == nil || !strings.Contains(err.Error(), "refuses") {
		t.Errorf("started again it says: %v", err)
	}

	if r := f.CLI("node", "rm", second.Name); r.Exit != 1 || !strings.Contains(r.Stderr, "tatami node drain") {
		t.Errorf("removing a node in use ended with %d: %s", r.Exit, r.Stderr)
	}
	f.Must("node", "rm", second.Name, "--force")
	if code := second.Wait(); code != 5 {
		t.Errorf("the worker that was removed ended with %d", code)
	}
	eventually(t, 30*time.Second, "there are no nodes", func() bool { return len(f.nodes()) == 0 })
	audit, err := os.ReadFile(filepath.Join(f.DataDir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"token-created", "worker-joined", "token-revoked", "node-removed", "refused"} {
		if !strings.Contains(string(audit), `"event":"`+event+`"`) {
			t.Errorf("the audit log does not say %s:\n%s", event, audit)
		}
	}
}
