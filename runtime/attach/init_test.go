package attach

import (
	"bytes"
	"errors"
	"testing"
)

func TestInit(t *testing.T) {
	t.Parallel()
	b, err := Init()
	if err == nil && !bytes.HasPrefix(b, []byte("\x7fELF")) {
		t.Errorf("what is built in is no program: %q", b[:min(16, len(b))])
	}
	if err != nil && !errors.Is(err, ErrNoInit) {
		t.Error(err)
	}
}
