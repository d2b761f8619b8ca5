package wire

import (
	"errors"
	"reflect"
	"testing"
)

func TestWords(t *testing.T) {
	w := Words{Hostname: "here", Drop: true, Request: Request{UID: 1, GID: 2, Groups: []uint32{3}, Cwd: "/", Args: []string{"a", "b"}, Env: []string{"K=v"}}}
	raw, err := w.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeWords(raw); err != nil || !reflect.DeepEqual(got, w) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range raw {
		if got, err := DecodeWords(raw[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d bytes are %+v, %v", n, got, err)
		}
	}
	w.Request.Args = append(w.Request.Args, string(make([]byte, MaxRequest)))
	if _, err := w.Encode(); !errors.Is(err, ErrTooLong) {
		t.Errorf("%v", err)
	}
}
