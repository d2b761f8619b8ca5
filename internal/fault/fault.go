// Package fault gives every error of Tatami a code, from which follow its kind, its HTTP status and the CLI's exit code.
//
// An error that crosses a package boundary is either a plain wrapped error, which counts as Internal, or a *Error made by New or Wrap.
// The message says what happened and to what; the hint says what to do next.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Error is an error with a code and, where one is known, the next step for whoever reads it.
type Error struct {
	// Code says what went wrong in kebab-case; it is the value of the Tatami-Error header.
	Code Code
	// Op is the operation that failed, in the words of DESIGN ("deploy", "invoke"); may be empty.
	Op string
	// Message says what happened, to what.
	Message string
	// Field names the part of the input that is at fault, as the caller wrote it; empty where no input is.
	Field string
	// Hint is the next step, best a command; may be empty.
	Hint string
	// RetryAfter is how long a caller should wait; 0 says nothing.
	RetryAfter time.Duration
	// Details holds further lines for a reader, such as a function's last log lines.
	Details []string
	// Err is the cause; may be nil.
	Err error
}

// New makes an Error of a code; format and args make the message.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error of a code around a cause. It returns nil for a nil cause only through a nil check of the caller's.
func Wrap(code Code, err error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: err}
}

// WithOp returns e with the operation set.
func (e *Error) WithOp(op string) *Error { e.Op = op; return e }

// WithField returns e with the field of the input named.
func (e *Error) WithField(field string) *Error { e.Field = field; return e }

// WithHint returns e with the next step set.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithRetryAfter returns e with the wait set.
func (e *Error) WithRetryAfter(d time.Duration) *Error { e.RetryAfter = d; return e }

// WithDetails returns e with further lines added.
func (e *Error) WithDetails(lines ...string) *Error {
	e.Details = append(e.Details, lines...)
	return e
}

// Error is one line without the hint.
func (e *Error) Error() string {
	s := e.Message
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// From returns the outermost *Error in err's chain, or nil.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// CodeOf returns the code of err: CodeInternal for an error without one, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e := From(err); e != nil {
		return e.Code
	}
	return CodeInternal
}

// KindOf returns the kind of err: Internal for an error without a code.
func KindOf(err error) Kind { return CodeOf(err).Kind() }

// Is reports whether err carries the code.
func Is(err error, code Code) bool { return err != nil && CodeOf(err) == code }
