package seccomp

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The offsets of what a filter can load, on little-endian machines.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// Instructions of classic BPF, and the results of a filter.
const (
	load       = 0x20 // ld [k]
	jumpEqual  = 0x15
	jumpAbove  = 0x25 // unsigned >
	jumpAtTop  = 0x35 // unsigned >=
	jump       = 0x05
	and        = 0x54
	give       = 0x06
	allow      = 0x7fff0000
	errno      = 0x00050000
	x32Bit     = 0x40000000
	maxProgram = 4096
)

// abi is one way of calling the kernel.
type abi struct {
	audit uint32
	// goarch names its table.
	goarch string
}

// abis are those of a machine that are served; a call by any other is refused. The x32 calls of amd64, which hardly any kernel has, are too.
func abis(goarch string) ([]abi, error) {
	switch goarch {
	case "amd64":
		return []abi{{0xc000003e, "amd64"}, {0x40000003, "386"}}, nil
	case "arm64":
		return []abi{{0xc00000b7, "arm64"}, {0x40000028, "arm"}}, nil
	}
	return nil, fmt.Errorf("no seccomp filter can be made for %s", goarch)
}

// rule is what is decided for a system call when every one of the conditions holds.
type rule struct {
	result     uint32
	conditions []specs.LinuxSeccompArg
}

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// Compile returns the filter that a profile means on machines of the architecture, in the kernel's form. A system call that is newer than
// all that the profile names does not exist (ENOSYS), so that a program may use an older one instead, as OCI runtimes have it.
func Compile(p *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	served, err := abis(goarch)
	if err != nil {
		return nil, err
	}
	other, err := result(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	program := []instruction{{load, 0, 0, offArch}}
	for _, a := range served {
		part, err := compileABI(p, a, other)
		if err != nil {
			return nil, err
		}
		// The part is too long for a conditional jump.
		program = append(program, instruction{jumpEqual, 1, 0, a.audit}, instruction{jump, 0, 0, uint32(len(part))})
		program = append(program, part...)
	}
	program = append(program, instruction{give, 0, 0, errno | uint32(syscall.ENOSYS)})
	if len(program) > maxProgram {
		return nil, errors.New("the seccomp filter is longer than the kernel takes")
	}
	out := make([]byte, 0, 8*len(program))
	for _, i := range program {
		out = binary.LittleEndian.AppendUint16(out, i.code)
		out = append(out, i.jt, i.jf)
		out = binary.LittleEndian.AppendUint32(out, i.k)
	}
	return out, nil
}

// compileABI decides on every call of one ABI.
func compileABI(p *specs.LinuxSeccomp, a abi, other uint32) ([]instruction, error) {
	numbers, err := table(a.goarch)
	if err != nil {
		return nil, err
	}
	rules := map[uint32][]rule{}
	newest := uint32(0)
	for _, s := range p.Syscalls {
		what, err := result(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			n, known := numbers[name]
			if !known {
				continue
			}
			rules[n] = append(rules[n], rule{what, s.Args})
			newest = max(newest, n)
		}
	}
	program := []instruction{{load, 0, 0, offNumber}}
	if a.goarch == "amd64" {
		program = append(program, instruction{jumpAtTop, 0, 1, x32Bit}, instruction{give, 0, 0, errno | uint32(syscall.ENOSYS)})
	}
	program = append(program, instruction{jumpAbove, 0, 1, newest}, instruction{give, 0, 0, errno | uint32(syscall.ENOSYS)})
	for _, n := range slices.SortedFunc(maps.Keys(rules), func(a, b uint32) int { return cmp.Compare(a, b) }) {
		body, err := decide(rules[n], other)
		if err != nil {
			return nil, err
		}
		if len(body) > 255 {
			return nil, fmt.Errorf("the seccomp profile has too many rules for the system call %d", n)
		}
		program = append(program, instruction{jumpEqual, 0, uint8(len(body)), n})
		program = append(program, body...)
	}
	return append(program, instruction{give, 0, 0, other}), nil
}

// decide ends in a result: that of the first rule whose conditions all hold. One without conditions holds always, so it comes first, as in
// OCI runtimes, where it makes the others void.
func decide(rules []rule, other uint32) ([]instruction, error) {
	for _, r := range rules {
		if len(r.conditions) == 0 {
			return []instruction{{give, 0, 0, r.result}}, nil
		}
	}
	var out []instruction
	for _, r := range rules {
		var test []instruction
		for _, c := range r.conditions {
			part, err := condition(c)
			if err != nil {
				return nil, err
			}
			test = append(test, part...)
		}
		test = append(test, instruction{give, 0, 0, r.result})
		// What fails goes to the end of the rule.
		for i := range test {
			if test[i].jf == fails {
				test[i].jf = uint8(len(test) - i - 1)
			}
			if test[i].jt == fails {
				test[i].jt = uint8(len(test) - i - 1)
			}
		}
		out = append(out, test...)
	}
	return append(out, instruction{give, 0, 0, other}), nil
}

// fails stands for the distance to the end of the rule.
const fails = 255

// condition goes on where it holds, and jumps to fails where not.
func condition(c specs.LinuxSeccompArg) ([]instruction, error) {
	if c.Index > 5 {
		return nil, fmt.Errorf("a seccomp rule is about argument %d", c.Index)
	}
	low, high := uint32(offArgs+8*c.Index), uint32(offArgs+8*c.Index+4)
	switch c.Op {
	case specs.OpEqualTo:
		return []instruction{
			{load, 0, 0, high}, {jumpEqual, 0, fails, uint32(c.Value >> 32)},
			{load, 0, 0, low}, {jumpEqual, 0, fails, uint32(c.Value)},
		}, nil
	case specs.OpMaskedEqual:
		return []instruction{
			{load, 0, 0, high}, {and, 0, 0, uint32(c.Value >> 32)}, {jumpEqual, 0, fails, uint32(c.ValueTwo >> 32)},
			{load, 0, 0, low}, {and, 0, 0, uint32(c.Value)}, {jumpEqual, 0, fails, uint32(c.ValueTwo)},
		}, nil
	case specs.OpNotEqual:
		return []instruction{
			{load, 0, 0, high}, {jumpEqual, 0, 2, uint32(c.Value >> 32)},
			{load, 0, 0, low}, {jumpEqual, fails, 0, uint32(c.Value)},
		}, nil
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := uint16(jumpAbove)
		if c.Op == specs.OpGreaterEqual {
			last = jumpAtTop
		}
		return []instruction{
			{load, 0, 0, high}, {jumpAbove, 3, 0, uint32(c.Value >> 32)}, {jumpEqual, 0, fails, uint32(c.Value >> 32)},
			{load, 0, 0, low}, {last, 0, fails, uint32(c.Value)},
		}, nil
	case specs.OpLessThan, specs.OpLessEqual:
		last := uint16(jumpAtTop)
		if c.Op == specs.OpLessEqual {
			last = jumpAbove
		}
		return []instruction{
			{load, 0, 0, high}, {jumpAtTop, 0, 3, uint32(c.Value >> 32)}, {jumpEqual, 0, fails, uint32(c.Value >> 32)},
			{load, 0, 0, low}, {last, fails, 0, uint32(c.Value)},
		}, nil
	}
	return nil, fmt.Errorf("a seccomp rule compares by %s", c.Op)
}

func result(a specs.LinuxSeccompAction, code *uint) (uint32, error) {
	switch a {
	case specs.ActAllow:
		return allow, nil
	case specs.ActErrno:
		if code != nil {
			return errno | uint32(*code&0xffff), nil
		}
		return errno | uint32(syscall.EPERM), nil
	}
	return 0, fmt.Errorf("a seccomp rule does %s", a)
}
