package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestSetupRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range []Setup{
		{},
		{
			Steps: []Step{
				{Op: OpMount, Source: "tmpfs", Path: "/dev", Kind: "tmpfs", Data: "mode=755", Number: 1 << 40},
				{Op: OpMknod, Path: "/dev/null", Number: 0o20666, Device: 1<<63 + 259},
			},
			Keep: 1<<63 + 1, Filter: []byte{0, 1, 2, 0}, FilterFlags: 4,
		},
	} {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		n, err := Length(b[:HeaderSize])
		if err != nil || n != len(b)-HeaderSize {
			t.Fatalf("%d of %d, %v", n, len(b), err)
		}
		got, err := DecodeSetup(b[HeaderSize:])
		if err != nil || len(got.Filter) != len(s.Filter) || !reflect.DeepEqual(got.Steps, s.Steps) || got.Keep != s.Keep || !bytes.Equal(got.Filter, s.Filter) || got.FilterFlags != s.FilterFlags {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := (&Setup{Filter: make([]byte, MaxRequest)}).Encode(); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
}

func TestSpawnRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range []Spawn{{}, {ID: "ins_a", Stdout: "/o", Stderr: "/e", Exit: strings.Repeat("x", 200), Cgroup: true}} {
		if got, err := DecodeSpawn(s.Encode()); err != nil || got != s {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for _, s := range []Spawned{{PID: 7}, {Why: "it cannot"}} {
		if got, err := DecodeSpawned(s.Encode()); err != nil || got != s {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for _, s := range []Spawned{{}, {PID: 7, Why: "both"}} {
		if got, err := DecodeSpawned(s.Encode()); err == nil {
			t.Errorf("%+v", got)
		}
	}
}

// FuzzSetup: what can be read at all is read the same again, and nothing else than that was there.
func FuzzSetup(f *testing.F) {
	s := Setup{Steps: []Step{{Op: OpMask, Path: "/proc/keys"}}, Filter: []byte("filter"), Keep: 7}
	whole, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[HeaderSize:])
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeSetup(b)
		if err != nil {
			return
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again[HeaderSize:], b) {
			t.Errorf("%q, %v", again, err)
		}
	})
}

// FuzzSpawn: a packet that can be read at all is read the same again.
func FuzzSpawn(f *testing.F) {
	f.Add((&Spawn{ID: "ins_a", Exit: "/x", Cgroup: true}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSpawn(b)
		if err != nil {
			return
		}
		if again, err := DecodeSpawn(s.Encode()); err != nil || again != s {
			t.Errorf("%+v, %v", again, err)
		}
	})
}
