package bus

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// AuditFile is the name of the file in the server's data directory that says, a JSON object a line, who joined, who may call, who was refused and what was
// revoked. A worker has one of its own, with those whom its listener refused.
const AuditFile = "audit.log"

const (
	// auditSize is when the file is put aside, as its name with .1, over the one before.
	auditSize = 8 << 20
	// auditRepeat is how long the same refusal is not written again, and auditKinds how many are remembered for that.
	auditRepeat = time.Minute
	auditKinds  = 1024
)

// audit is the record of who was let in and who was not. It never fails its caller: what cannot be written is in the log. A nil audit writes nothing.
type audit struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	file *os.File
	size int64
	said map[refusal]time.Time
}

// refusal is what refusals are told apart by.
type refusal struct {
	who, why string
}

func newAudit(dir string, log *slog.Logger) *audit {
	return &audit{path: filepath.Join(dir, AuditFile), log: log, said: map[refusal]time.Time{}}
}

func slogNode(node functions.NodeID) slog.Attr { return slog.String("node", string(node)) }

// say writes an event down.
func (a *audit) say(event string, args ...any) {
	if a == nil {
		return
	}
	args = append([]any{"event", event}, args...)
	a.log.Info("membership", args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.write(args)
}

// refused writes down that a worker or a caller was not let in, or not heard: a reason of one's at most once a minute.
func (a *audit) refused(who slog.Attr, remote string, err error) {
	if a == nil {
		return
	}
	args := []any{who, "remote", remote, "err", err}
	a.mu.Lock()
	defer a.mu.Unlock()
	k, now := refusal{who.String(), err.Error()}, time.Now()
	if last, known := a.said[k]; known && now.Sub(last) < auditRepeat {
		return
	}
	if len(a.said) >= auditKinds {
		clear(a.said)
	}
	a.said[k] = now
	a.log.Warn("a client is not let in, or not heard", args...)
	a.write(append([]any{"event", "refused"}, args...))
}

// refusedServer writes down that who wanted to be a server of the cluster was not taken for one.
func (a *audit) refusedServer(err error) { a.refused(slog.String("server", "?"), "", err) }

// write appends a line; a.mu is held.
func (a *audit) write(args []any) {
	if err := a.open(); err != nil {
		a.log.Error("the audit log cannot be written", "err", err)
		return
	}
	h := slog.NewJSONHandler(a, &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.LevelKey || attr.Key == slog.MessageKey {
			return slog.Attr{}
		}
		return attr
	}})
	slog.New(h).Log(context.Background(), slog.LevelInfo, "membership", args...)
}

// Write is for the handler; a.mu is held.
func (a *audit) Write(b []byte) (int, error) {
	n, err := a.file.Write(b)
	a.size += int64(n)
	if err != nil {
		a.log.Error("the audit log cannot be written", "err", err)
	}
	return n, err
}

// open makes sure that the file is there and not too large; a.mu is held.
func (a *audit) open() error {
	if a.file != nil && a.size >= auditSize {
		a.shut()
		if err := os.Rename(a.path, a.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if a.file != nil {
		return nil
	}
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	a.file, a.size = f, info.Size()
	return nil
}

func (a *audit) shut() {
	if a.file != nil {
		_ = a.file.Close()
	}
	a.file = nil
}

// close ends the writing.
func (a *audit) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut()
}
