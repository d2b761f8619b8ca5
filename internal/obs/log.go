package obs

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Keys of log lines have one meaning each, everywhere: fn a function (name.namespace), rev a revision, inst an instance, node a node,
// inv an invocation, err an error's text, kind an error's kind, dur_ms a duration in milliseconds. The linter refuses other names for them.

// LogConfig says how the process logs.
type LogConfig struct {
	// Level is the least level that is written: debug, info, warn or error. Default info.
	Level string
	// Format is text, json or auto: text on a terminal, json elsewhere. Default auto.
	Format string
}

// ParseLevel reads the name of a level; empty stands for info.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fault.New(fault.CodeInvalidRequest, "log level %q is not known", s).WithField("log-level").
		WithHint("use debug, info, warn or error")
}

// NewLogger makes a logger that writes to w.
func NewLogger(w io.Writer, cfg LogConfig) (*slog.Logger, error) {
	level, err := ParseLevel(cfg.Level)
	if err != nil {
		return nil, err
	}
	var text bool
	switch cfg.Format {
	case "text":
		text = true
	case "json":
	case "auto", "":
		f, ok := w.(*os.File)
		text = ok && term.IsTerminal(int(f.Fd()))
	default:
		return nil, fault.New(fault.CodeInvalidRequest, "log format %q is not known", cfg.Format).WithField("log-format").
			WithHint("use auto, text or json")
	}
	opts := &slog.HandlerOptions{Level: level}
	if text {
		opts.ReplaceAttr = shortTime
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return slog.New(slog.NewJSONHandler(w, opts)), nil
}

// shortTime leaves the time of day: whoever reads a terminal knows the date.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}

// Err is the attribute of an error; a nil error gives an empty attribute, which handlers leave out.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String("err", err.Error())
}

// Kind is the attribute of an error's kind.
func Kind(err error) slog.Attr { return slog.String("kind", fault.KindOf(err).String()) }
