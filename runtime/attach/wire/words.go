package wire

const (
	// StartProgram is where the init lies in a container that was made ahead, until the function takes the init's place.
	StartProgram = "/tmp/.tatami-start"
	// StartWords is where its words lie.
	StartWords = "/tmp/.tatami-words"
	// MaxWords is the longest that Words are in bytes.
	MaxWords = MaxRequest + 4096
)

// Words are what the first process of a container that was made ahead finds in a file when the container is started.
type Words struct {
	// Hostname is set by the process; empty: it has its name.
	Hostname string
	// Drop says that the process is to go to the request's directory, become its user and give up what that one is not to have; else it has.
	Drop bool
	// Request is the function's process.
	Request Request
}

// Encode returns the words.
func (w *Words) Encode() ([]byte, error) {
	drop := uint32(0)
	if w.Drop {
		drop = 1
	}
	return w.Request.append(number(text(nil, w.Hostname), drop))
}

// DecodeWords reads them.
func DecodeWords(b []byte) (Words, error) {
	d := decoder{b: b}
	w := Words{Hostname: d.text(), Drop: d.number() != 0}
	if d.bad {
		return Words{}, ErrMalformed
	}
	var err error
	w.Request, err = Decode(d.b)
	return w, err
}
