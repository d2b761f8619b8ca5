//go:build linux

package containerd

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// libraryLogger makes the logger that calls to containerd carry in their context.
func libraryLogger(log *slog.Logger) *logrus.Entry {
	l := logrus.New()
	leadTo(l, log)
	return logrus.NewEntry(l)
}

// leadStandard leads containerd's process-wide logger, which parts of it use without a context, to ours: the last caller's.
func leadStandard(log *slog.Logger) { leadTo(logrus.StandardLogger(), log) }

func leadTo(l *logrus.Logger, log *slog.Logger) {
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.WarnLevel)
	l.ReplaceHooks(logrus.LevelHooks{})
	l.AddHook(logHook{log})
}

// logHook passes entries on for debugging: what is an error to containerd is mostly the expected end of a shim to us, and what concerns
// us it returns as well.
type logHook struct{ log *slog.Logger }

func (h logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level < logrus.ErrorLevel {
		level = slog.LevelError
	}
	args := make([]any, 0, 2+2*len(e.Data))
	args = append(args, "said", e.Message)
	for k, v := range e.Data {
		if k == logrus.ErrorKey {
			k = "err"
		}
		args = append(args, k, v)
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	h.log.Log(ctx, level, "containerd", args...)
	return nil
}
