//go:build e2e

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// `make help` lists every target that a person may want.
func TestMakeHelp(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "make", "help")
	cmd.Dir = harness.Root(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, target := range []string{"demo", "test", "check", "e2e", "bench", "lint", "fmt", "build", "clean", "help"} {
		if !strings.Contains(string(out), "  "+target+" ") {
			t.Errorf("make help does not list %s:\n%s", target, out)
		}
	}
}
