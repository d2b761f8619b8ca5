package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) functions.SecretRef {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return functions.SecretRef{File: path}
	}
	t.Setenv("TATAMI_SECRET_TEST", " in the environment\n")
	for want, ref := range map[string]functions.SecretRef{
		"new|old": file("two", "new\r\n\n old \n"), "in the environment": {Env: "TATAMI_SECRET_TEST"}, "one": file("one", "one"),
	} {
		got, err := Read(ref)
		var words []string
		for _, s := range got {
			words = append(words, string(s))
		}
		if err != nil || strings.Join(words, "|") != want {
			t.Errorf("%v: %q, %v; want %q", ref, words, err, want)
		}
	}
	for _, ref := range []functions.SecretRef{
		file("empty", "\n"), file("large", strings.Repeat("x", maxSecrets+1)), {File: dir}, {File: filepath.Join(dir, "none")}, {Env: "TATAMI_SECRET_NONE"}, {File: "/dev/zero"},
	} {
		_, err := Read(ref)
		if !fault.Is(err, fault.CodeUnavailable) || strings.Contains(err.Error(), dir) {
			t.Errorf("%v: %v", ref, err)
		}
	}
}
