//go:build linux

package containerd

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// On v1 the rules are written, on v2 a program judges by them; both say the same.
func TestDeviceRules(t *testing.T) {
	t.Parallel()
	var rules []string
	for _, d := range allowedDevices() {
		rules = append(rules, deviceRule(d))
	}
	want := []string{"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 1:5 rwm", "c 1:9 rwm", "c 136:* rwm", "c 5:2 rwm"}
	if !slices.Equal(rules, want) {
		t.Errorf("%q", rules)
	}
	program, _, err := deviceProgram()
	if err != nil {
		t.Fatal(err)
	}
	const char, block = unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK
	const make, read, write = unix.BPF_DEVCG_ACC_MKNOD, unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE
	for _, c := range []struct {
		kind, access, major, minor int64
		allowed                    bool
	}{
		{char, read | write, 1, 3, true}, {char, read, 1, 9, true}, {char, write, 5, 0, true}, {char, read | write, 136, 7, true},
		{char, make, 1, 1, true}, {block, make, 254, 0, true},
		{char, read, 1, 1, false}, {char, write, 10, 200, false}, {char, read, 5, 1, false}, {char, read, 137, 0, false},
		{block, read, 1, 3, false}, {block, write, 254, 0, false}, {block, read, 8, 0, false},
	} {
		if got := judge(t, program, c.kind|c.access<<16, c.major, c.minor); got != c.allowed {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// judge runs the program as the kernel would, on one use of a device.
func judge(t *testing.T, program asm.Instructions, access, major, minor int64) bool {
	t.Helper()
	var r [11]int64
	words := map[int16]int64{0: access, 4: major, 8: minor}
	for i := 0; i < len(program); i++ {
		in := program[i]
		value := in.Constant
		if in.OpCode.Source() == asm.RegSource {
			value = r[in.Src]
		}
		jump := false
		switch op := in.OpCode; {
		case op.Class() == asm.LdXClass && op.Size() == asm.Half:
			r[in.Dst] = words[in.Offset] & 0xffff
		case op.Class() == asm.LdXClass && op.Size() == asm.Word:
			r[in.Dst] = words[in.Offset]
		case op.Class() == asm.ALUClass && op.ALUOp() == asm.RSh:
			r[in.Dst] >>= value
		case op.Class().IsALU() && op.ALUOp() == asm.Mov:
			r[in.Dst] = value
		case op.Class() == asm.ALUClass && op.ALUOp() == asm.And:
			r[in.Dst] &= value
		case op.JumpOp() == asm.JNE:
			jump = r[in.Dst] != value
		case op.JumpOp() == asm.JEq:
			jump = r[in.Dst] == value
		case op.JumpOp() == asm.Exit:
			return r[asm.R0] != 0
		default:
			t.Fatalf("instruction %d is none of those known: %v", i, in)
		}
		if jump {
			to := slices.IndexFunc(program, func(other asm.Instruction) bool { return other.Symbol() == in.Reference() })
			if to < 0 {
				t.Fatalf("no instruction is called %q", in.Reference())
			}
			i = to - 1
		}
	}
	t.Fatal("the program ends without a verdict")
	return false
}
