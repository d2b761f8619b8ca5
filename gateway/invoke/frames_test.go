package invoke

import (
	"bytes"
	"testing"
)

// However the bytes are cut, what is known at the end is the same, and a frame may follow exactly behind a whole one.
func FuzzFrames(f *testing.F) {
	text := append([]byte{0x81, 3}, "abc"...)
	masked := append([]byte{0x81, 0x83, 1, 2, 3, 4}, "abc"...)
	long := append([]byte{0x02, 126, 1, 0}, bytes.Repeat([]byte("x"), 256)...)
	longer := append([]byte{0x80, 127, 0, 0, 0, 0, 0, 0, 0, 2}, "yz"...)
	whole := bytes.Join([][]byte{text, masked, long, longer, {0x89, 0}}, nil)
	f.Add(whole, uint8(3))
	f.Add(closeFrame(1001, "bye"), uint8(1))
	var fr frames
	fr.follow(whole)
	if !fr.between() {
		f.Fatal("not between frames after whole ones")
	}
	for i := 1; i < len(text); i++ {
		var fr frames
		if fr.follow(text[:i]); fr.between() {
			f.Errorf("between frames after %d bytes of one", i)
		}
	}
	fr.follow(closeFrame(1001, "bye"))
	if fr.between() {
		f.Error("a frame may follow a close frame")
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var one, parts frames
		one.follow(data)
		for p := data; len(p) > 0; {
			n := min(max(int(step), 1), len(p))
			parts.follow(p[:n])
			p = p[n:]
		}
		if one.left != parts.left || one.have != parts.have || one.closing != parts.closing || one.between() != parts.between() {
			t.Errorf("%+v and %+v", one, parts)
		}
	})
}
