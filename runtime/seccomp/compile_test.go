package seccomp

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is what a filter is shown.
type call struct {
	arch, number uint32
	args         [6]uint64
}

// machine runs a filter. The library reads numbers as networks have them, so it gets them turned round.
func machine(t *testing.T, filter []byte) func(call) uint32 {
	t.Helper()
	var raw []bpf.RawInstruction
	for i := 0; i < len(filter); i += 8 {
		raw = append(raw, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(filter[i:]), Jt: filter[i+2], Jf: filter[i+3], K: binary.LittleEndian.Uint32(filter[i+4:]),
		})
	}
	program, whole := bpf.Disassemble(raw)
	if !whole {
		t.Fatal("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return func(c call) uint32 {
		words := []uint32{c.number, c.arch, 0, 0}
		for _, a := range c.args {
			words = append(words, uint32(a), uint32(a>>32))
		}
		var data []byte
		for _, w := range words {
			data = binary.BigEndian.AppendUint32(data, w)
		}
		n, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
}

func compiled(t *testing.T, p *specs.LinuxSeccomp, goarch string) func(call) uint32 {
	t.Helper()
	filter, err := Compile(p, goarch)
	if err != nil {
		t.Fatal(err)
	}
	return machine(t, filter)
}

const (
	x86    = 0xc000003e
	i386   = 0x40000003
	denied = errno | uint32(unix.EPERM)
	nosys  = errno | uint32(unix.ENOSYS)
)

func TestCompile(t *testing.T) {
	t.Parallel()
	code := uint(unix.ENOSYS)
	run := compiled(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read", "exit_group", "no_such_call"}, Action: specs.ActAllow},
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &code},
		{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 8, Op: specs.OpEqualTo}}},
		{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1<<32 + 9, Op: specs.OpEqualTo}}},
	}}, "amd64")
	for name, c := range map[string]struct {
		call
		want uint32
	}{
		"allowed":                {call{x86, 0, [6]uint64{}}, allow},
		"not named":              {call{x86, 1, [6]uint64{}}, denied},
		"of another number":      {call{i386, 3, [6]uint64{}}, allow},
		"not named, 32 bits":     {call{i386, 4, [6]uint64{}}, denied},
		"with an error":          {call{x86, 435, [6]uint64{}}, nosys},
		"newer than the profile": {call{x86, 436, [6]uint64{}}, nosys},
		"x32":                    {call{x86, x32Bit, [6]uint64{}}, nosys},
		"another architecture":   {call{0xc00000b7, 0, [6]uint64{}}, nosys},
		"argument":               {call{x86, 135, [6]uint64{8}}, allow},
		"second rule":            {call{x86, 135, [6]uint64{1<<32 + 9}}, allow},
		"wrong argument":         {call{x86, 135, [6]uint64{9}}, denied},
		"wrong high half":        {call{x86, 135, [6]uint64{1<<32 + 8}}, denied},
	} {
		if got := run(c.call); got != c.want {
			t.Errorf("%s: %#x, not %#x", name, got, c.want)
		}
	}
}

// TestConditions: each comparison is the one of Go.
func TestConditions(t *testing.T) {
	t.Parallel()
	values := []uint64{0, 1, 2, 0x7fffffff, 0xffffffff, 1 << 32, 1<<32 + 1, 2 << 32, 1<<64 - 1}
	for op, holds := range map[specs.LinuxSeccompOperator]func(arg, value, two uint64) bool{
		specs.OpEqualTo:      func(a, v, _ uint64) bool { return a == v },
		specs.OpNotEqual:     func(a, v, _ uint64) bool { return a != v },
		specs.OpGreaterThan:  func(a, v, _ uint64) bool { return a > v },
		specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpLessThan:     func(a, v, _ uint64) bool { return a < v },
		specs.OpLessEqual:    func(a, v, _ uint64) bool { return a <= v },
		specs.OpMaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	} {
		for _, value := range values {
			for _, two := range []uint64{0, 1, 1 << 32} {
				run := compiled(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
					Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 5, Value: value, ValueTwo: two, Op: op}},
				}}}, "amd64")
				for _, arg := range values {
					if got := run(call{x86, 0, [6]uint64{5: arg}}) == allow; got != holds(arg, value, two) {
						t.Errorf("%#x %s %#x %#x: %v", arg, op, value, two, got)
					}
				}
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*specs.LinuxSeccomp{
		"an action":   {DefaultAction: specs.ActNotify},
		"a rule":      {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActTrace}}},
		"an operator": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "?"}}}}},
		"an argument": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, err := Compile(p, "amd64"); err == nil {
			t.Errorf("%s that is not known was taken", name)
		}
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, "vax"); err == nil {
		t.Error("an architecture that is not known was taken")
	}
}

// TestTable: the numbers are this machine's.
func TestTable(t *testing.T) {
	t.Parallel()
	for _, goarch := range []string{"386", "amd64", "arm", "arm64"} {
		numbers, err := table(goarch)
		if err != nil || len(numbers) < 300 {
			t.Errorf("%s: %d, %v", goarch, len(numbers), err)
		}
	}
	numbers, err := table(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{
		"read": unix.SYS_READ, "execve": unix.SYS_EXECVE, "ptrace": unix.SYS_PTRACE, "mount": unix.SYS_MOUNT, "keyctl": unix.SYS_KEYCTL, "clone3": unix.SYS_CLONE3,
	} {
		if numbers[name] != want {
			t.Errorf("%s: %d, not %d", name, numbers[name], want)
		}
	}
}
