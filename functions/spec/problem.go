package spec

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/tatami-faas/tatami/internal/fault"
)

// maxProblems bounds what is reported of one file.
const maxProblems = 100

// Problem is one thing that is wrong with a file.
type Problem struct {
	// File is what the file was called.
	File string
	// Line and Column begin at 1; the column counts characters.
	Line, Column int
	// Width is how many characters the caret spans, at least 1.
	Width int
	// Field is the path of the field at fault, such as scale.min; empty where none is.
	Field string
	// Message says what is wrong and, where something is near, what was probably meant.
	Message string
	// Hint is the next step; may be empty.
	Hint string
	// Source is the offending line.
	Source string
}

// String is the position and the message on one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Snippet is the offending line with its number and a caret under the place.
func (p Problem) Snippet() []string {
	if p.Line < 1 {
		return nil
	}
	const before, most = 60, 120
	line := []rune(p.Source)
	column := min(max(p.Column-1, 0), len(line))
	head := ""
	if column > before {
		cut := column - before
		line, column, head = line[cut:], before, "…"
	}
	tail := ""
	if len(line) > most {
		line, tail = line[:most], "…"
	}
	shown, pad := make([]rune, len(line)), make([]rune, column)
	for i, r := range line {
		if !unicode.IsPrint(r) && r != '\t' {
			r = unicode.ReplacementChar
		}
		shown[i] = r
		if i < column {
			pad[i] = ' '
			if r == '\t' {
				pad[i] = '\t'
			}
		}
	}
	width := max(1, min(p.Width, len(line)-column))
	number := fmt.Sprint(p.Line)
	gap := strings.Repeat(" ", len(number))
	return []string{
		fmt.Sprintf("  %s | %s%s%s", number, head, string(shown), tail),
		fmt.Sprintf("  %s | %s%s%s", gap, strings.Repeat(" ", len([]rune(head))), string(pad), strings.Repeat("^", width)),
	}
}

// Error is everything that is wrong with a file. It is found as a *fault.Error with the code invalid-spec too, whose details hold each
// problem with its snippet.
type Error struct {
	// Problems are in the order of the file; there is at least one.
	Problems []Problem
	fault    *fault.Error
}

func newError(name string, problems []Problem) *Error {
	e := &Error{Problems: problems}
	first := problems[0]
	if len(problems) == 1 {
		e.fault = fault.New(fault.CodeInvalidSpec, "%s", first).WithDetails(first.Snippet()...)
	} else {
		e.fault = fault.New(fault.CodeInvalidSpec, "%s has %s", name, plural(len(problems), "problem", "problems"))
		for _, p := range problems {
			e.fault.Details = append(append(e.fault.Details, p.String()), p.Snippet()...)
			if p.Hint != "" {
				e.fault.Details = append(e.fault.Details, "  "+p.Hint)
			}
		}
	}
	e.fault.Field = first.Field
	e.fault.Hint = first.Hint
	if e.fault.Hint == "" || len(problems) > 1 {
		e.fault.Hint = fmt.Sprintf("correct %s and run the command again; nothing was changed", name)
	}
	return e
}

// Error is one line: the problem, or how many there are.
func (e *Error) Error() string { return e.fault.Error() }

// Unwrap returns the *fault.Error.
func (e *Error) Unwrap() error { return e.fault }
