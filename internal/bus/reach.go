package bus

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Listener is where gateways reach a worker's instances.
type Listener struct {
	// Address is HOST:PORT.
	Address string `json:"address"`
	// Token is good for one run of the worker.
	Token string `json:"token"`
}

// What a worker's listener serves. A session and a tunnel are upgrades of HTTP/1.1: from there on the connection carries slot lines, or
// whatever the instance and the gateway have to say to each other.
const (
	// PathSession: GET, an upgrade to UpgradeSession; the answer names the session in HeaderSession. The slots that a session takes, and its
	// tunnels, end with it.
	PathSession = "/v1/session"
	// PathTunnel and an instance's id: GET, an upgrade to UpgradeTunnel, within the session of HeaderSession.
	PathTunnel = "/v1/tunnel/"
	// PathLogs: POST of a LogQuery, answered with a LogEvent a line.
	PathLogs = "/v1/logs"
	// PathExec: POST of an ExecRequest, answered with an ExecResult.
	PathExec = "/v1/exec"
	// PathEnd: POST of an EndRequest, answered without a body.
	PathEnd = "/v1/end"

	UpgradeSession = "tatami-session"
	UpgradeTunnel  = "tatami-tunnel"
	HeaderSession  = "Tatami-Session"
)

// Signs of life on a session: the gateway sends a line every SessionPing, which the worker answers.
const (
	SessionPing = 400 * time.Millisecond
	// SessionMissed is for how many of these in a row the gateway waits for a line; then the worker is out of reach. What waits for its work to be made
	// again elsewhere does so no longer than what runs there takes to be missed.
	SessionMissed = 5
	// SessionSilence is how long the worker takes a gateway's silence for life. It loses nothing by being slow: a gateway that is back has a new session.
	SessionSilence = 3 * time.Second
)

// Operations of slot lines.
const (
	// SlotAdmit asks for a slot of the instance in Text, SlotRelease gives it back, SlotPing asks for a sign of life. SlotRelease from the worker, without
	// a sequence, asks to have back what is kept of the instance's slots.
	SlotAdmit   = 'A'
	SlotRelease = 'R'
	SlotPing    = 'P'
	// SlotGranted answers SlotAdmit and SlotPing; SlotRefused answers SlotAdmit, with the reason in Text.
	SlotGranted = 'Y'
	SlotRefused = 'N'
)

// SlotKeep as the text of a SlotGranted says that the gateway may keep the instance's slots for a moment that its calls give back, for calls to come.
const SlotKeep = "keep"

// SlotLine is a line of a session: OP SEQUENCE TEXT. The answer to a line has its sequence.
type SlotLine struct {
	Op       byte
	Sequence uint64
	// Text holds no line break.
	Text string
}

// MaxSlotLine is the longest slot line in bytes, its end included.
const MaxSlotLine = 512

// Append appends the line to b. A text that is too long is cut.
func (l SlotLine) Append(b []byte) []byte {
	begin := len(b)
	b = append(b, l.Op, ' ')
	b = append(strconv.AppendUint(b, l.Sequence, 10), ' ')
	b = append(b, l.Text...)
	if len(b)-begin >= MaxSlotLine {
		b = b[:begin+MaxSlotLine-1]
	}
	return append(b, '\n')
}

// ParseSlotLine reads a line, with or without its end.
func ParseSlotLine(b []byte) (SlotLine, error) {
	bad := func() (SlotLine, error) {
		return SlotLine{}, fault.New(fault.CodeInvalidRequest, "%.40q is no slot line", b)
	}
	line := bytes.TrimSuffix(b, []byte{'\n'})
	if len(line) >= MaxSlotLine || len(line) < 4 || line[1] != ' ' || bytes.IndexByte(line, '\n') >= 0 {
		return bad()
	}
	switch line[0] {
	case SlotAdmit, SlotRelease, SlotPing, SlotGranted, SlotRefused:
	default:
		return bad()
	}
	number, text, ok := bytes.Cut(line[2:], []byte{' '})
	seq, err := strconv.ParseUint(string(number), 10, 64)
	if !ok || err != nil {
		return bad()
	}
	return SlotLine{line[0], seq, string(text)}, nil
}

// LogQuery says which lines of a function's log a worker shall give.
type LogQuery struct {
	Ref functions.Ref `json:"ref"`
	// Instance and Revision pick one's lines; empty: everybody's.
	Instance functions.InstanceID `json:"instance,omitempty"`
	Revision functions.RevisionID `json:"revision,omitempty"`
	// Since leaves out older lines; zero: none.
	Since time.Time `json:"since,omitzero"`
	// Tail is how many of the retained lines are wanted, the newest; 0: all; negative: none.
	Tail int `json:"tail,omitempty"`
	// Follow goes on with lines as they come.
	Follow bool `json:"follow,omitempty"`
	// Live, if set, is called between the last retained line and the first that follows.
	Live func() `json:"-"`
}

// LogLine is a line that an instance wrote, or the platform about it.
type LogLine struct {
	Time     time.Time            `json:"time"`
	Instance functions.InstanceID `json:"instance"`
	Revision functions.RevisionID `json:"revision,omitempty"`
	// Stream is "stdout", "stderr", or "tatami" for the platform.
	Stream string `json:"stream"`
	Text   string `json:"text"`
}

// LogEvent is a line of the answer to a LogQuery: a log line; or that those that follow are new; or the fault that ended the answer.
type LogEvent struct {
	Line *LogLine `json:"line,omitempty"`
	Live bool     `json:"live,omitempty"`
	Err  string   `json:"err,omitempty"`
}

// EndRequest asks for the end of an instance, whoever holds a slot of it.
type EndRequest struct {
	Schema   int                  `json:"schema"`
	Instance functions.InstanceID `json:"instance"`
	// Reason is why, for people.
	Reason string `json:"reason"`
}

// ExecRequest asks for a further process in an instance.
type ExecRequest struct {
	Schema   int                  `json:"schema"`
	Instance functions.InstanceID `json:"instance"`
	Args     []string             `json:"args"`
	Stdin    []byte               `json:"stdin,omitempty"`
}

// ExecResult is how that process ended. Output beyond MaxExecOutput is cut off.
type ExecResult struct {
	Schema int    `json:"schema"`
	Code   int    `json:"code"`
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
}

// MaxExecInput and MaxExecOutput bound an exec's stdin, and its stdout and stderr each, in bytes.
const (
	MaxExecInput  = 8 << 20
	MaxExecOutput = 4 << 20
)

// RespondFault answers a request to a worker's listener with an error.
func RespondFault(w http.ResponseWriter, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set(headerError, string(fault.CodeOf(err)))
	if f := fault.From(err); f != nil && f.Hint != "" {
		h.Set(headerHint, f.Hint)
	}
	w.WriteHeader(fault.CodeOf(err).Status())
	_, _ = io.WriteString(w, err.Error())
}

// FaultOf reads the error from an answer of RespondFault, or of anything else that is not what was asked for.
func FaultOf(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	code := fault.Code(resp.Header.Get(headerError))
	if code == "" {
		return fault.New(fault.CodeUnavailable, "a worker answered %s: %s", resp.Status, text)
	}
	f := fault.New(code, "%s", text)
	f.Hint = resp.Header.Get(headerHint)
	return f
}
