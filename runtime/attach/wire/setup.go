package wire

// Setup is what a new process of a sandbox does before it says Hello: everything for which it needs privileges.
type Setup struct {
	// Steps are done in order.
	Steps []Step
	// Keep has a bit set for each capability that is kept until the request comes; the others go, bounding set included.
	Keep uint64
	// Filter is the seccomp filter, in the kernel's form; empty: none. FilterFlags are seccomp(2)'s.
	Filter      []byte
	FilterFlags uint32
}

// Op names what a step does.
type Op uint32

// The operations, with what their fields mean. Optional operations do nothing where the path does not exist.
const (
	// OpMount is mount(2): Source, Path, Kind, Number (flags), Data.
	OpMount Op = iota + 1
	// OpMkdir makes the directory Path with the mode Number.
	OpMkdir
	// OpMknod makes the device Path with the mode Number and the device number Device.
	OpMknod
	// OpSymlink makes the link Path that leads to Source.
	OpSymlink
	// OpWrite writes Data into the file Path, which exists.
	OpWrite
	// OpMask hides Path, a directory under an empty tmpfs with the options Data. Optional.
	OpMask
	// OpReadOnly makes Path read-only. Optional.
	OpReadOnly
	// OpPivot makes Path the root and lets go of the old one.
	OpPivot
	// OpUnshare takes new namespaces of the kinds in Number.
	OpUnshare
	// OpLoopback brings the loopback device up.
	OpLoopback
	// OpKeyring takes a new session keyring by the name of Source.
	OpKeyring
	// OpSession begins a session of its own.
	OpSession
	// OpChown gives Path to the user Number and the group Device, as the node numbers them.
	OpChown
	// OpUsers makes a user namespace: the init starts anew in it, says Entered, and reads another setup.
	OpUsers
	// OpRoot becomes the root of the process's user namespace.
	OpRoot
)

// Step is one operation.
type Step struct {
	Op                       Op
	Source, Path, Kind, Data string
	Number, Device           uint64
}

// Encode returns the setup behind its header.
func (s *Setup) Encode() ([]byte, error) {
	b := number(make([]byte, HeaderSize, 16<<10), uint32(len(s.Steps)))
	for _, st := range s.Steps {
		b = number(b, uint32(st.Op))
		for _, t := range []string{st.Source, st.Path, st.Kind, st.Data} {
			b = text(b, t)
		}
		b = long(long(b, st.Number), st.Device)
	}
	b = long(b, s.Keep)
	b = number(text(b, string(s.Filter)), s.FilterFlags)
	if len(b)-HeaderSize > MaxRequest || len(s.Steps) > maxStrings {
		return nil, ErrTooLong
	}
	number(b[:0], uint32(len(b)-HeaderSize))
	return b, nil
}

// DecodeSetup reads a setup without its header.
func DecodeSetup(b []byte) (Setup, error) {
	d := decoder{b: b}
	var s Setup
	for range d.count() {
		st := Step{Op: Op(d.number()), Source: d.text(), Path: d.text(), Kind: d.text(), Data: d.text(), Number: d.long(), Device: d.long()}
		if d.bad {
			break
		}
		s.Steps = append(s.Steps, st)
	}
	s.Keep = d.long()
	s.Filter = d.bytes()
	s.FilterFlags = d.number()
	if d.bad || len(d.b) > 0 {
		return Setup{}, ErrMalformed
	}
	return s, nil
}

func long(b []byte, n uint64) []byte { return number(number(b, uint32(n)), uint32(n>>32)) }

func (d *decoder) long() uint64 {
	low := d.number()
	return uint64(low) | uint64(d.number())<<32
}
