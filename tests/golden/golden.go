// Package golden compares what a test made with a file that holds what is expected.
package golden

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Check fails the test unless the file testdata/name holds got. With UPDATE_GOLDEN=1 in the environment it writes the file instead:
// read the difference before committing it, since formats that are stored must not change.
func Check(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("no golden file (UPDATE_GOLDEN=1 makes it): %v", err)
	}
	if !bytes.Equal(want, got) {
		t.Fatalf("%s differs from what is made now; is it a format that stays? (-want +got):\n%s", path, cmp.Diff(string(want), string(got)))
	}
}

// JSON checks got, indented, against the file testdata/name.
func JSON(t *testing.T, name string, got any) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	Check(t, name, append(b, '\n'))
}
