package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, r := range []Request{
		{UID: 65532, GID: 65532, Cwd: "/", Args: []string{"/fn"}},
		{UID: 1, GID: 0, Groups: []uint32{7, 1 << 31}, Cwd: "", Args: []string{"fn", "", "ü"}, Env: []string{"A=", "B=x\ny", ""}, Listen: 65535},
		{UID: 0, GID: 0, Cwd: "/", Args: []string{"/fn"}, Keep: 1<<40 + 1},
	} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		n, err := Length(b[:HeaderSize])
		if err != nil || n != len(b)-HeaderSize {
			t.Fatalf("%d of %d, %v", n, len(b), err)
		}
		got, err := Decode(b[HeaderSize:])
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	if _, err := (&Request{UID: 1, Args: []string{strings.Repeat("x", MaxRequest)}}).Encode(); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	for name, r := range map[string]Request{
		"root":               {UID: 0, GID: 1, Args: []string{"/fn"}},
		"privileges":         {UID: 1, GID: 1, Args: []string{"/fn"}, Keep: 1},
		"no such port":       {UID: 1, Args: []string{"/fn"}, Listen: 65536},
		"no program":         {UID: 1},
		"a NUL in a string":  {UID: 1, Args: []string{"/fn\x00x"}},
		"a NUL in the cwd":   {UID: 1, Args: []string{"/fn"}, Cwd: "\x00"},
		"a NUL in the names": {UID: 1, Args: []string{"/fn"}, Env: []string{"A=\x00"}},
	} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(b[HeaderSize:]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, header := range [][]byte{nil, {1}, {255, 255, 255, 255}} {
		if n, err := Length(header); err == nil {
			t.Errorf("%v: %d", header, n)
		}
	}
}

// FuzzDecode: what can be read at all is read the same again.
func FuzzDecode(f *testing.F) {
	b, err := (&Request{UID: 65532, GID: 1, Groups: []uint32{5}, Cwd: "/srv", Args: []string{"/fn", "a"}, Env: []string{"A=b"}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[HeaderSize:])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{255}, 64))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Decode(raw)
		if err != nil {
			return
		}
		if r.UID == 0 && r.Keep == 0 || len(r.Args) == 0 {
			t.Fatalf("%+v", r)
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[HeaderSize:], raw) {
			t.Fatalf("%q becomes %q", raw, again)
		}
	})
}
