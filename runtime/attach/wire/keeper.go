package wire

// KeeperHello is the first packet that a keeper sends: the version of this protocol.
const KeeperHello = "tatami-keeper 1"

// MaxSpawn is the longest packet to a keeper.
const MaxSpawn = 4096

// Spawn asks the keeper for a new process that waits for its setup: the packet, which carries the descriptor of the process's connection
// and, where Cgroup says so, that of its cgroup.
type Spawn struct {
	// ID is the sandbox's.
	ID string
	// Stdout and Stderr are the files to which the process's output is appended; Exit is where the keeper writes its exit status, decimal.
	Stdout, Stderr, Exit string
	Cgroup               bool
}

// Encode returns the packet.
func (s *Spawn) Encode() []byte {
	b := texts(nil, []string{s.ID, s.Stdout, s.Stderr, s.Exit})
	if s.Cgroup {
		return number(b, 1)
	}
	return number(b, 0)
}

// DecodeSpawn reads a packet.
func DecodeSpawn(b []byte) (Spawn, error) {
	d := decoder{b: b}
	all := d.texts()
	cgroup := d.number()
	if d.bad || len(d.b) > 0 || len(all) != 4 {
		return Spawn{}, ErrMalformed
	}
	return Spawn{all[0], all[1], all[2], all[3], cgroup == 1}, nil
}

// Spawned is the keeper's answer: the process's id on the node, or why there is none.
type Spawned struct {
	PID uint32
	Why string
}

// Encode returns the packet.
func (s *Spawned) Encode() []byte { return text(number(nil, s.PID), s.Why) }

// DecodeSpawned reads a packet.
func DecodeSpawned(b []byte) (Spawned, error) {
	d := decoder{b: b}
	s := Spawned{PID: d.number(), Why: d.text()}
	if d.bad || len(d.b) > 0 || (s.PID == 0) == (s.Why == "") {
		return Spawned{}, ErrMalformed
	}
	return s, nil
}
